//! Nobody acknowledges a datagram, so that there is nothing to send again.
//~ error[E0277]: `Ud` is no reliable connection: it has no timers, retries or fences to set

use ibverbs::QueuePairBuilder;

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Ud>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_retry_count(3)
}

fn main() {}
