//! An unreliable connection has no atomic writes.
//~ error[E0277]: `Uc` is no reliable connection

use ibverbs::{RemoteMemorySlice, SendBatch};

fn case(batch: &mut SendBatch<'_, ibverbs::Uc>, remote: RemoteMemorySlice) {
    batch.op().atomic_write(1, remote, 2);
}

fn main() {}
