//! Submitting consumes the batch.

use ibverbs::{QueuePair, Rc};

fn case(qp: &mut QueuePair<Rc>) -> ibverbs::Result<()> {
    let mut batch = qp.start_send();
    batch.op().send(1, b"hello");
    unsafe { batch.submit() }?;
    Ok(())
}

fn main() {}
