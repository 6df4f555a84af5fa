//! A queue pair is initialised once, by whomever.

use ibverbs::rdmacm::CmId;
use ibverbs::{Init, PreparedQueuePair, QueuePair, Rc};

fn case(id: &mut CmId, prepared: PreparedQueuePair<Rc>) -> ibverbs::Result<()> {
    let qp: QueuePair<Rc, Init> = id.init(prepared)?;
    let _qp = id.ready_to_receive(qp)?;
    Ok(())
}

fn main() {}
