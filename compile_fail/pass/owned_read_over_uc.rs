//! An unreliable connection has no reads, on the owned level either.

use ibverbs::{Buffer, OwnedQueuePair, Rc, RemoteMemorySlice, Uc};

fn case(
    mut qp: OwnedQueuePair<Rc>,
    _: OwnedQueuePair<Uc>,
    buffer: Buffer,
    remote: RemoteMemorySlice,
) {
    let mut batch = qp.start_send();
    batch.op().read(1, buffer, 8, remote);
    let _ = batch.submit();
}

fn main() {}
