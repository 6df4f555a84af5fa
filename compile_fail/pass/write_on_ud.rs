//! A datagram is a send: there is no RDMA write.

use ibverbs::{AddressHandle, RemoteMemorySlice, SendBatch, Ud};

fn case(batch: &mut SendBatch<'_, Ud>, ah: &AddressHandle, remote: RemoteMemorySlice) {
    batch.to(ah, 17, 0x1234).send(1, &remote.to_bytes());
}

fn main() {}
