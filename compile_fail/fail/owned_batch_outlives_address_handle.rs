//! An address handle lives as long as the batch, which is read when it is submitted.
//~ error[E0505]: cannot move out of `ah` because it is borrowed

use ibverbs::{AddressHandle, Buffer, OwnedQueuePair, Ud};

fn case(mut qp: OwnedQueuePair<Ud>, ah: AddressHandle, buffer: Buffer) {
    let mut batch = qp.start_send();
    batch.to(&ah, 2, 3).send(1, buffer, 8);
    drop(ah);
    let _ = batch.submit();
}

fn main() {}
