//! A datagram is addressed, on the owned level too.
//~ error[E0277]: `Ud` is not connected: address each operation with `.to(&ah, qpn, qkey)`

use ibverbs::{AddressHandle, Buffer, OwnedQueuePair, Ud};

fn case(mut qp: OwnedQueuePair<Ud>, _: &AddressHandle, buffer: Buffer) {
    let mut batch = qp.start_send();
    batch.op().send(1, buffer, 8);
    let _ = batch.submit();
}

fn main() {}
