//! Submitting consumes the batch.
//~ error[E0382]: borrow of moved value: `batch`

use ibverbs::{QueuePair, Rc};

fn case(qp: &mut QueuePair<Rc>) -> ibverbs::Result<()> {
    let mut batch = qp.start_send();
    unsafe { batch.submit() }?;
    batch.op().send(1, b"hello");
    Ok(())
}

fn main() {}
