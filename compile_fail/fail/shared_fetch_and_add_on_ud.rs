//! A datagram transport has no atomic operations, in a shared batch either.
//~ error[E0277]: transport `Ud` has no atomic operations

use ibverbs::{RemoteMemorySlice, SendOp, Shared, SharedSlice};

type Op<'b> = SendOp<'b, ibverbs::Ud, Shared>;

fn case(op: Op<'_>, slice: SharedSlice<'_>, remote: RemoteMemorySlice) {
    op.atomic_fetch_add(1, slice, remote, 2);
}

fn main() {}
