//! The device decides when it sends again; only how often to a peer that is not ready is the program's business.

use ibverbs::QueuePairBuilder;

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Srd>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_rnr_retry(3)
}

fn main() {}
