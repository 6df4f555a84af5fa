//! A buffer that the device fills is not looked at before its completion.

use ibverbs::{Buffer, OwnedQueuePair, Rc, Result};

fn case(mut qp: OwnedQueuePair<Rc>, buffer: Buffer) -> Result<u8> {
    let first = buffer[0];
    qp.post_recv(1, buffer)?;
    Ok(first)
}

fn main() {}
