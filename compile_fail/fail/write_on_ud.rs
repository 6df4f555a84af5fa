//! A datagram is a send: there is no RDMA write.
//~ error[E0277]: transport `Ud` has no RDMA write

use ibverbs::{AddressHandle, RemoteMemorySlice, SendBatch, Ud};

fn case(batch: &mut SendBatch<'_, Ud>, ah: &AddressHandle, remote: RemoteMemorySlice) {
    batch.to(ah, 17, 0x1234).write(1, b"hello", remote);
}

fn main() {}
