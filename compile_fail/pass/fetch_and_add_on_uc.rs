//! An unreliable connection has no fetch and add.

use ibverbs::{LocalMemorySlice, RemoteMemorySlice, SendBatch};

type Batch<'qp> = SendBatch<'qp, ibverbs::Rc>;

fn case(batch: &mut Batch<'_>, slice: LocalMemorySlice, remote: RemoteMemorySlice) {
    batch.op().atomic_fetch_add(1, slice, remote, 1);
}

fn main() {}
