//! Nobody reads or writes memory through a datagram queue pair.

use ibverbs::{AccessFlags, QueuePairBuilder};

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Rc>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_access(AccessFlags::REMOTE_WRITE)
}

fn main() {}
