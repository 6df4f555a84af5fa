//! A datagram is addressed, on the owned level too.

use ibverbs::{AddressHandle, Buffer, OwnedQueuePair, Ud};

fn case(mut qp: OwnedQueuePair<Ud>, ah: &AddressHandle, buffer: Buffer) {
    let mut batch = qp.start_send();
    batch.to(ah, 2, 3).send(1, buffer, 8);
    let _ = batch.submit();
}

fn main() {}
