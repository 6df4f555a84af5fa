//! A compare and swap carries no immediate data.
//~ error[E0277]: an operation that carries immediate data is a `send` or a `write`

use ibverbs::{LocalMemorySlice, Rc, RemoteMemorySlice, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>, slice: LocalMemorySlice, remote: RemoteMemorySlice) {
    batch.op().imm(7).atomic_cmp_swap(1, slice, remote, 0, 1);
}

fn main() {}
