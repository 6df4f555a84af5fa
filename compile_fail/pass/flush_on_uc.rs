//! An unreliable connection has no flushes.

use ibverbs::{FlushLevel, FlushPlacement, RemoteMemorySlice, SendBatch};

fn case(batch: &mut SendBatch<'_, ibverbs::Rc>, remote: RemoteMemorySlice) {
    batch.op().flush(1, remote, FlushPlacement::GLOBAL, FlushLevel::Range);
}

fn main() {}
