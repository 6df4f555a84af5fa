//! The address handle lives until the operation is added; after that it may go.
//~ error[E0505]: cannot move out of `ah` because it is borrowed

use ibverbs::{AddressHandle, SendBatch, Ud};

fn case(batch: &mut SendBatch<'_, Ud>, ah: AddressHandle) {
    let op = batch.to(&ah, 17, 0x1234);
    drop(ah);
    op.send(1, b"hello");
}

fn main() {}
