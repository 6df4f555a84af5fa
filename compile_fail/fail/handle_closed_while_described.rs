//! An address handle is not closed while an operation is described that goes to it.
//~ error[E0505]: cannot move out of `ah` because it is borrowed

use ibverbs::{AddressHandle, SendBatch, Ud};

fn case(batch: &mut SendBatch<'_, Ud>, ah: AddressHandle) {
    let op = batch.to(&ah, 17, 0x1234).signaled();
    ah.close().unwrap();
    op.imm(5).send(1, b"hello");
}

fn main() {}
