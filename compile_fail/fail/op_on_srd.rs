//! An operation of SRD is addressed, a write no less than a send.
//~ error[E0277]: `Srd` is not connected: address each operation with `.to(&ah, qpn, qkey)`

use ibverbs::{AddressHandle, RemoteMemorySlice, SendBatch, Srd};

fn case(batch: &mut SendBatch<'_, Srd>, ah: &AddressHandle, remote: RemoteMemorySlice) {
    batch.to(ah, 17, 0x1234).send(1, b"hello");
    batch.op().write(1, b"hello", remote);
}

fn main() {}
