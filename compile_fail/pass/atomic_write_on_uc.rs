//! An unreliable connection has no atomic writes.

use ibverbs::{RemoteMemorySlice, SendBatch};

fn case(batch: &mut SendBatch<'_, ibverbs::Rc>, remote: RemoteMemorySlice) {
    batch.op().atomic_write(1, remote, 2);
}

fn main() {}
