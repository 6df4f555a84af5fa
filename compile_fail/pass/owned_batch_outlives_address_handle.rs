//! An address handle lives as long as the batch, which is read when it is submitted.

use ibverbs::{AddressHandle, Buffer, OwnedQueuePair, Ud};

fn case(mut qp: OwnedQueuePair<Ud>, ah: AddressHandle, buffer: Buffer) {
    let mut batch = qp.start_send();
    batch.to(&ah, 2, 3).send(1, buffer, 8);
    let _ = batch.submit();
    drop(ah);
}

fn main() {}
