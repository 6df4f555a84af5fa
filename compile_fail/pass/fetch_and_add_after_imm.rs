//! A fetch and add carries no immediate data.

use ibverbs::{LocalMemorySlice, Rc, RemoteMemorySlice, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>, slice: LocalMemorySlice, remote: RemoteMemorySlice) {
    batch.op().atomic_fetch_add(1, slice, remote, 1);
}

fn main() {}
