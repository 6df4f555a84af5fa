//! A read carries no immediate data.
//~ error[E0277]: an operation that carries immediate data is a `send` or a `write`

use ibverbs::{LocalMemorySlice, Rc, RemoteMemorySlice, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>, slices: &[LocalMemorySlice], remote: RemoteMemorySlice) {
    batch.op().imm(7).read(1, slices, remote);
}

fn main() {}
