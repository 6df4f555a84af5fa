//! A datagram queue pair answers no reads and atomics.

use ibverbs::QueuePairBuilder;

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Rc>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_max_dest_rd_atomic(1)
}

fn main() {}
