//! A datagram transport has no RDMA read.
//~ error[E0277]: transport `Ud` has no RDMA read

use ibverbs::{LocalMemorySlice, RemoteMemorySlice, SendOp};

type Op<'b> = SendOp<'b, ibverbs::Ud>;

fn case(op: Op<'_>, slice: LocalMemorySlice, remote: RemoteMemorySlice) {
    op.read(1, &[slice], remote);
}

fn main() {}
