//! A buffer is in one place.
//~ error[E0382]: use of moved value: `buffer`

use ibverbs::{Buffer, OwnedQueuePair, Rc, Result};

fn case(mut qp: OwnedQueuePair<Rc>, buffer: Buffer, _: Buffer) -> Result<()> {
    qp.send(1, buffer, 8)?;
    qp.send(2, buffer, 8)?;
    Ok(())
}

fn main() {}
