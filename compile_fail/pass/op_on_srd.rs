//! An operation of SRD is addressed, a write no less than a send.

use ibverbs::{AddressHandle, RemoteMemorySlice, SendBatch, Srd};

fn case(batch: &mut SendBatch<'_, Srd>, ah: &AddressHandle, remote: RemoteMemorySlice) {
    batch.to(ah, 17, 0x1234).send(1, b"hello");
    batch.to(ah, 17, 0x1234).write(1, b"hello", remote);
}

fn main() {}
