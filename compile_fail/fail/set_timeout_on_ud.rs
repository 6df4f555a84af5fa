//! A datagram waits for no acknowledgement.
//~ error[E0277]: `Ud` is no reliable connection

use ibverbs::{AckTimeout, QueuePairBuilder};

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Ud>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_timeout(AckTimeout::INFINITE)
}

fn main() {}
