//! A datagram transport has no reads, in a shared batch either.
//~ error[E0277]: transport `Ud` has no RDMA read

use ibverbs::{RemoteMemorySlice, SendOp, Shared, SharedSlice};

type Op<'b> = SendOp<'b, ibverbs::Ud, Shared>;

fn case(op: Op<'_>, slice: SharedSlice<'_>, remote: RemoteMemorySlice) {
    op.read(1, &[slice], remote);
}

fn main() {}
