//! A shared batch has its queue pair for itself: it is not destroyed meanwhile.

use ibverbs::{QueuePair, Rc};

fn case(mut qp: QueuePair<Rc>) -> ibverbs::Result<()> {
    let batch = qp.start_shared();
    batch.submit()?;
    qp.close()?;
    Ok(())
}

fn main() {}
