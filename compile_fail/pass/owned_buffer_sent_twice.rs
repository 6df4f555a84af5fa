//! A buffer is in one place.

use ibverbs::{Buffer, OwnedQueuePair, Rc, Result};

fn case(mut qp: OwnedQueuePair<Rc>, buffer: Buffer, other: Buffer) -> Result<()> {
    qp.send(1, buffer, 8)?;
    qp.send(2, other, 8)?;
    Ok(())
}

fn main() {}
