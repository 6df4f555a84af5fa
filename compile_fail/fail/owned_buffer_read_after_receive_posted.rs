//! A buffer that the device fills is not looked at before its completion.
//~ error[E0382]: borrow of moved value: `buffer`

use ibverbs::{Buffer, OwnedQueuePair, Rc, Result};

fn case(mut qp: OwnedQueuePair<Rc>, buffer: Buffer) -> Result<u8> {
    qp.post_recv(1, buffer)?;
    Ok(buffer[0])
}

fn main() {}
