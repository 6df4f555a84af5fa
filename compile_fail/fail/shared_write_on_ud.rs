//! A datagram transport has no writes, in a shared batch either.
//~ error[E0277]: transport `Ud` has no RDMA write

use ibverbs::{RemoteMemorySlice, SendOp, Shared};

type Op<'b> = SendOp<'b, ibverbs::Ud, Shared>;

fn case(op: Op<'_>, remote: RemoteMemorySlice) {
    op.write(1, b"hello", remote);
}

fn main() {}
