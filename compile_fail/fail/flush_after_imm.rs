//! A flush carries no immediate data.
//~ error[E0277]: an operation that carries immediate data is a `send` or a `write`

use ibverbs::{FlushLevel, FlushPlacement, Rc, RemoteMemorySlice, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>, remote: RemoteMemorySlice) {
    batch.op().imm(7).flush(1, remote, FlushPlacement::GLOBAL, FlushLevel::Range);
}

fn main() {}
