//! A datagram with immediate data is a send.

use ibverbs::{AddressHandle, RemoteMemorySlice, SendBatch, Ud};

fn case(batch: &mut SendBatch<'_, Ud>, ah: &AddressHandle, remote: RemoteMemorySlice) {
    batch.to(ah, 17, 0x1234).imm(5).send(1, &remote.to_bytes());
}

fn main() {}
