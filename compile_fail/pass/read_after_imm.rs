//! A read carries no immediate data.

use ibverbs::{LocalMemorySlice, Rc, RemoteMemorySlice, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>, slices: &[LocalMemorySlice], remote: RemoteMemorySlice) {
    batch.op().read(1, slices, remote);
}

fn main() {}
