//! A queue pair is initialised once.

use ibverbs::{QueuePair, Rc};

fn case(qp: QueuePair<Rc, ibverbs::Reset>) -> ibverbs::Result<()> {
    let initialised = qp.init()?;
    Ok(initialised.close()?)
}

fn main() {}
