//! An atomic write carries no immediate data.
//~ error[E0277]: an operation that carries immediate data is a `send` or a `write`

use ibverbs::{Rc, RemoteMemorySlice, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>, remote: RemoteMemorySlice) {
    batch.op().imm(7).atomic_write(1, remote, 2);
}

fn main() {}
