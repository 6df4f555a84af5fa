//! An unreliable connection has no compare and swap, in a shared batch either.

use ibverbs::{RemoteMemorySlice, SendOp, Shared, SharedSlice};

type Op<'b> = SendOp<'b, ibverbs::Rc, Shared>;

fn case(op: Op<'_>, slice: SharedSlice<'_>, remote: RemoteMemorySlice) {
    op.atomic_cmp_swap(1, slice, remote, 0, 1);
}

fn main() {}
