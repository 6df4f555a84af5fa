//! A queue pair that is not ready to send has no shared batches either.

use ibverbs::{QueuePair, Rc, Result, Rtr};

fn case(qp: QueuePair<Rc, Rtr>) -> Result<()> {
    let mut qp = qp.ready_to_send()?;
    let mut batch = qp.start_shared();
    batch.op().send(1, b"too early");
    batch.submit()
}

fn main() {}
