//! An unreliable connection has no flushes.
//~ error[E0277]: `Uc` is no reliable connection

use ibverbs::{FlushLevel, FlushPlacement, RemoteMemorySlice, SendBatch};

fn case(batch: &mut SendBatch<'_, ibverbs::Uc>, remote: RemoteMemorySlice) {
    batch.op().flush(1, remote, FlushPlacement::GLOBAL, FlushLevel::Range);
}

fn main() {}
