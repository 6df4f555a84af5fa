//! A datagram is addressed.

use ibverbs::{AddressHandle, SendBatch, Ud};

fn case(batch: &mut SendBatch<'_, Ud>, ah: &AddressHandle) {
    batch.to(ah, 17, 0x1234).signaled().send(1, b"hello");
}

fn main() {}
