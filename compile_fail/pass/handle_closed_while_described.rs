//! An address handle is not closed while an operation is described that goes to it.

use ibverbs::{AddressHandle, SendBatch, Ud};

fn case(batch: &mut SendBatch<'_, Ud>, ah: AddressHandle) {
    let op = batch.to(&ah, 17, 0x1234).signaled();
    op.imm(5).send(1, b"hello");
    ah.close().unwrap();
}

fn main() {}
