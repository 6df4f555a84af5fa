//! A read carries no immediate data, on SRD as elsewhere.

use ibverbs::{LocalMemorySlice, RemoteMemorySlice, SendOp};

type Op<'b> = SendOp<'b, ibverbs::Srd>;

fn case(op: Op<'_>, slice: LocalMemorySlice, remote: RemoteMemorySlice) {
    op.imm(1).write(1, &[slice], remote);
}

fn main() {}
