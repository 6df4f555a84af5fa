//! A queue pair of SRD is no unreliable one, although both send datagrams.
//~ error[E0308]: mismatched types

use ibverbs::{CompletionQueue, ProtectionDomain, QueuePairBuilder, Result};

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Ud>;

fn case<'a>(pd: &'a ProtectionDomain, cq: &'a CompletionQueue) -> Result<Builder<'a>> {
    pd.create_srd_qp(cq, cq, 1)
}

fn main() {}
