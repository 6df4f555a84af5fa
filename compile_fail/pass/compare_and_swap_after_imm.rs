//! A compare and swap carries no immediate data.

use ibverbs::{LocalMemorySlice, Rc, RemoteMemorySlice, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>, slice: LocalMemorySlice, remote: RemoteMemorySlice) {
    batch.op().atomic_cmp_swap(1, slice, remote, 0, 1);
}

fn main() {}
