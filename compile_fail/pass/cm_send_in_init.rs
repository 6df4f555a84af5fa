//! An identifier that has initialised a queue pair has not connected it.

use ibverbs::rdmacm::CmId;
use ibverbs::{PreparedQueuePair, Rc};

fn case(id: &mut CmId, prepared: PreparedQueuePair<Rc>) -> ibverbs::Result<()> {
    let mut qp = id.bring_up(prepared)?;
    drop(qp.start_send());
    Ok(())
}

fn main() {}
