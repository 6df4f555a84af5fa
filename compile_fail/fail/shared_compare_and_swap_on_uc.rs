//! An unreliable connection has no compare and swap, in a shared batch either.
//~ error[E0277]: transport `Uc` has no atomic operations

use ibverbs::{RemoteMemorySlice, SendOp, Shared, SharedSlice};

type Op<'b> = SendOp<'b, ibverbs::Uc, Shared>;

fn case(op: Op<'_>, slice: SharedSlice<'_>, remote: RemoteMemorySlice) {
    op.atomic_cmp_swap(1, slice, remote, 0, 1);
}

fn main() {}
