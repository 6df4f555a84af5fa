//! A datagram is addressed.
//~ error[E0277]: `Ud` is not connected: address each operation with `.to(&ah, qpn, qkey)`

use ibverbs::{AddressHandle, SendBatch, Ud};

fn case(batch: &mut SendBatch<'_, Ud>, ah: &AddressHandle) {
    batch.op().signaled().send(1, b"hello");
}

fn main() {}
