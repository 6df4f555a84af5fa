//! A drain destroys the queue pair.

use ibverbs::{Buffer, OwnedCompletionQueue, OwnedQueuePair, Rc, Result};

fn case(mut qp: OwnedQueuePair<Rc>, cq: &OwnedCompletionQueue, buffer: Buffer) -> Result<()> {
    qp.post_recv(1, buffer)?;
    qp.drain(&[cq])?;
    Ok(())
}

fn main() {}
