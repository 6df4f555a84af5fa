//! Nobody reads or writes memory through a datagram queue pair.
//~ error[E0277]: `Ud` is not connected: address each operation with `.to(&ah, qpn, qkey)`

use ibverbs::{AccessFlags, QueuePairBuilder};

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Ud>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_access(AccessFlags::REMOTE_WRITE)
}

fn main() {}
