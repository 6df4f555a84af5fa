//! A queue pair that is in no state to send has no shared batches either.
//~ error[E0277]: a queue pair in state `Init` cannot send

use ibverbs::{QueuePair, Rc, Result};

fn case(mut qp: QueuePair<Rc, ibverbs::Init>) -> Result<()> {
    let mut batch = qp.start_shared();
    batch.op().send(1, b"too early");
    batch.submit()
}

fn main() {}
