//! Resetting consumes the queue pair.

use ibverbs::{QueuePair, Rc};

fn case(mut qp: QueuePair<Rc>) -> ibverbs::Result<()> {
    let mut batch = qp.start_send();
    batch.op().send(1, b"hello");
    drop(batch);
    let prepared = qp.reset()?;
    Ok(prepared.close()?)
}

fn main() {}
