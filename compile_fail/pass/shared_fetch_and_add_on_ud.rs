//! A datagram transport has no atomic operations, in a shared batch either.

use ibverbs::{RemoteMemorySlice, SendOp, Shared, SharedSlice};

type Op<'b> = SendOp<'b, ibverbs::Rc, Shared>;

fn case(op: Op<'_>, slice: SharedSlice<'_>, remote: RemoteMemorySlice) {
    op.atomic_fetch_add(1, slice, remote, 2);
}

fn main() {}
