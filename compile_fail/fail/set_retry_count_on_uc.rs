//! An unreliable connection does not send again.
//~ error[E0277]: `Uc` is no reliable connection: it has no timers, retries or fences to set

use ibverbs::QueuePairBuilder;

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Uc>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_retry_count(3)
}

fn main() {}
