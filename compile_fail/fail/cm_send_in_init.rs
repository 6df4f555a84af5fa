//! An identifier that has initialised a queue pair has not connected it.
//~ error[E0277]: a queue pair in state `Init` cannot send

use ibverbs::rdmacm::CmId;
use ibverbs::{PreparedQueuePair, Rc};

fn case(id: &mut CmId, prepared: PreparedQueuePair<Rc>) -> ibverbs::Result<()> {
    let mut qp = id.init(prepared)?;
    drop(qp.start_send());
    Ok(())
}

fn main() {}
