//! A queue pair that is in no state to send has no shared batches either.

use ibverbs::{QueuePair, Rc, Result};

fn case(mut qp: QueuePair<Rc, ibverbs::Rts>) -> Result<()> {
    let mut batch = qp.start_shared();
    batch.op().send(1, b"too early");
    batch.submit()
}

fn main() {}
