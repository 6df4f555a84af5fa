//! The address handle lives until the operation is added; after that it may go.

use ibverbs::{AddressHandle, SendBatch, Ud};

fn case(batch: &mut SendBatch<'_, Ud>, ah: AddressHandle) {
    let op = batch.to(&ah, 17, 0x1234);
    op.send(1, b"hello");
    drop(ah);
}

fn main() {}
