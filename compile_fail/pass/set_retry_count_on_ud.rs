//! Nobody acknowledges a datagram, so that there is nothing to send again.

use ibverbs::QueuePairBuilder;

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Rc>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_retry_count(3)
}

fn main() {}
