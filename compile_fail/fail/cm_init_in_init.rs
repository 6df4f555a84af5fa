//! A queue pair is initialised once, by whomever.
//~ error[E0308]: mismatched types

use ibverbs::rdmacm::CmId;
use ibverbs::{Init, PreparedQueuePair, QueuePair, Rc};

fn case(id: &mut CmId, prepared: PreparedQueuePair<Rc>) -> ibverbs::Result<()> {
    let qp: QueuePair<Rc, Init> = id.init(prepared)?;
    let _qp = id.init(qp)?;
    Ok(())
}

fn main() {}
