//! An unreliable connection has no compare and swap.

use ibverbs::{LocalMemorySlice, RemoteMemorySlice, SendBatch};

type Batch<'qp> = SendBatch<'qp, ibverbs::Rc>;

fn case(batch: &mut Batch<'_>, slice: LocalMemorySlice, remote: RemoteMemorySlice) {
    batch.op().atomic_cmp_swap(1, slice, remote, 0, 1);
}

fn main() {}
