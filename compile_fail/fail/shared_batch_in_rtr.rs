//! A queue pair that is not ready to send has no shared batches either.
//~ error[E0277]: a queue pair in state `Rtr` cannot send

use ibverbs::{QueuePair, Rc, Result, Rtr};

fn case(mut qp: QueuePair<Rc, Rtr>) -> Result<()> {
    let mut batch = qp.start_shared();
    batch.op().send(1, b"too early");
    batch.submit()
}

fn main() {}
