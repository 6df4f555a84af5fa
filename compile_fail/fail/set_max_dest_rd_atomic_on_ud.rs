//! A datagram queue pair answers no reads and atomics.
//~ error[E0277]: `Ud` is no reliable connection: it has no timers, retries or fences to set

use ibverbs::QueuePairBuilder;

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Ud>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_max_dest_rd_atomic(1)
}

fn main() {}
