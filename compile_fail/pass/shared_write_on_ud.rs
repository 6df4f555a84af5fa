//! A datagram transport has no writes, in a shared batch either.

use ibverbs::{RemoteMemorySlice, SendOp, Shared};

type Op<'b> = SendOp<'b, ibverbs::Rc, Shared>;

fn case(op: Op<'_>, remote: RemoteMemorySlice) {
    op.write(1, b"hello", remote);
}

fn main() {}
