//! Bytes of a buffer are not kept beyond its being sent.
//~ error[E0505]: cannot move out of `buffer` because it is borrowed

use ibverbs::{Buffer, OwnedQueuePair, Rc, Result};

fn case(mut qp: OwnedQueuePair<Rc>, buffer: Buffer) -> Result<u8> {
    let bytes = &buffer[..8];
    qp.send(1, buffer, 8)?;
    Ok(bytes[0])
}

fn main() {}
