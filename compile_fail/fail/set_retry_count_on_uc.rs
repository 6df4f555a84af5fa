//! An unreliable connection does not send again.
//~ error[E0277]: `Uc` is not reliable: it has no acknowledgements, timers, retries or fences

use ibverbs::QueuePairBuilder;

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Uc>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_retry_count(3)
}

fn main() {}
