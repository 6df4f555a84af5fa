//! A flush carries no immediate data.

use ibverbs::{FlushLevel, FlushPlacement, Rc, RemoteMemorySlice, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>, remote: RemoteMemorySlice) {
    batch.op().flush(1, remote, FlushPlacement::GLOBAL, FlushLevel::Range);
}

fn main() {}
