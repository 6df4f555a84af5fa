//! A datagram waits for no acknowledgement.

use ibverbs::{AckTimeout, QueuePairBuilder};

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Rc>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_timeout(AckTimeout::INFINITE)
}

fn main() {}
