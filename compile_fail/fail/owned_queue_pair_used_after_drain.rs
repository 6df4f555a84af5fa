//! A drain destroys the queue pair.
//~ error[E0382]: borrow of moved value: `qp`

use ibverbs::{Buffer, OwnedCompletionQueue, OwnedQueuePair, Rc, Result};

fn case(mut qp: OwnedQueuePair<Rc>, cq: &OwnedCompletionQueue, buffer: Buffer) -> Result<()> {
    qp.drain(&[cq])?;
    qp.post_recv(1, buffer)?;
    Ok(())
}

fn main() {}
