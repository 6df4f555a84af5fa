//! A buffer that was sent is not the program's any more.
//~ error[E0382]: borrow of moved value: `buffer`

use ibverbs::{Buffer, OwnedQueuePair, Rc, Result};

fn case(mut qp: OwnedQueuePair<Rc>, mut buffer: Buffer) -> Result<()> {
    qp.send(1, buffer, 8)?;
    buffer[0] = 1;
    Ok(())
}

fn main() {}
