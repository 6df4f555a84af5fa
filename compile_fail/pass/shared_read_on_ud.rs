//! A datagram transport has no reads, in a shared batch either.

use ibverbs::{RemoteMemorySlice, SendOp, Shared, SharedSlice};

type Op<'b> = SendOp<'b, ibverbs::Rc, Shared>;

fn case(op: Op<'_>, slice: SharedSlice<'_>, remote: RemoteMemorySlice) {
    op.read(1, &[slice], remote);
}

fn main() {}
