//! An unreliable connection has no atomic writes.
//~ error[E0277]: `Uc` is not reliable

use ibverbs::{RemoteMemorySlice, SendBatch};

fn case(batch: &mut SendBatch<'_, ibverbs::Uc>, remote: RemoteMemorySlice) {
    batch.op().atomic_write(1, remote, 2);
}

fn main() {}
