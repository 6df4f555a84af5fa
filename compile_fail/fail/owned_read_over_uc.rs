//! An unreliable connection has no reads, on the owned level either.
//~ error[E0277]: transport `Uc` has no RDMA read

use ibverbs::{Buffer, OwnedQueuePair, Rc, RemoteMemorySlice, Uc};

fn case(
    mut qp: OwnedQueuePair<Uc>,
    _: OwnedQueuePair<Rc>,
    buffer: Buffer,
    remote: RemoteMemorySlice,
) {
    let mut batch = qp.start_send();
    batch.op().read(1, buffer, 8, remote);
    let _ = batch.submit();
}

fn main() {}
