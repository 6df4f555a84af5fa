//! A datagram is not sent again to a peer that was not ready.

use ibverbs::QueuePairBuilder;

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Rc>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_rnr_retry(3)
}

fn main() {}
