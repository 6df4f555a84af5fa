//! An atomic write carries no immediate data.

use ibverbs::{Rc, RemoteMemorySlice, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>, remote: RemoteMemorySlice) {
    batch.op().atomic_write(1, remote, 2);
}

fn main() {}
