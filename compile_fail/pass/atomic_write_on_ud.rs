//! A datagram transport has no atomic writes.

use ibverbs::{RemoteMemorySlice, SendOp};

type Op<'b> = SendOp<'b, ibverbs::Rc>;

fn case(op: Op<'_>, remote: RemoteMemorySlice) {
    op.atomic_write(1, remote, 2);
}

fn main() {}
