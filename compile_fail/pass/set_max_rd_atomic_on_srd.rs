//! SRD has no reads of a connection to limit.

use ibverbs::QueuePairBuilder;

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Rc>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_max_rd_atomic(1)
}

fn main() {}
