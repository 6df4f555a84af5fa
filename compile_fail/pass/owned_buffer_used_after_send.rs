//! A buffer that was sent is not the program's any more.

use ibverbs::{Buffer, OwnedQueuePair, Rc, Result};

fn case(mut qp: OwnedQueuePair<Rc>, mut buffer: Buffer) -> Result<()> {
    buffer[0] = 1;
    qp.send(1, buffer, 8)?;
    Ok(())
}

fn main() {}
