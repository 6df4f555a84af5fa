//! A read carries no immediate data.

use ibverbs::{Buffer, OwnedQueuePair, Rc, RemoteMemorySlice};

fn case(mut qp: OwnedQueuePair<Rc>, buffer: Buffer, remote: RemoteMemorySlice) {
    let mut batch = qp.start_send();
    batch.op().read(1, buffer, 8, remote);
    let _ = batch.submit();
}

fn main() {}
