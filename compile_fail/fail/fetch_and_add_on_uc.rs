//! An unreliable connection has no fetch and add.
//~ error[E0277]: transport `Uc` has no atomic operations

use ibverbs::{LocalMemorySlice, RemoteMemorySlice, SendBatch};

type Batch<'qp> = SendBatch<'qp, ibverbs::Uc>;

fn case(batch: &mut Batch<'_>, slice: LocalMemorySlice, remote: RemoteMemorySlice) {
    batch.op().atomic_fetch_add(1, slice, remote, 1);
}

fn main() {}
