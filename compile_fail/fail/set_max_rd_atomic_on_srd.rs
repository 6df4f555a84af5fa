//! SRD has no reads of a connection to limit.
//~ error[E0277]: `Srd` is no reliable connection: it has no timers, retries or fences to set

use ibverbs::QueuePairBuilder;

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Srd>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_max_rd_atomic(1)
}

fn main() {}
