//! Resetting consumes the queue pair.
//~ error[E0382]: borrow of moved value: `qp`

use ibverbs::{QueuePair, Rc};

fn case(mut qp: QueuePair<Rc>) -> ibverbs::Result<()> {
    let prepared = qp.reset()?;
    let mut batch = qp.start_send();
    batch.op().send(1, b"hello");
    drop(batch);
    Ok(prepared.close()?)
}

fn main() {}
