//! A read carries no immediate data, on SRD as elsewhere.
//~ error[E0277]: an operation that carries immediate data is a `send` or a `write`

use ibverbs::{LocalMemorySlice, RemoteMemorySlice, SendOp};

type Op<'b> = SendOp<'b, ibverbs::Srd>;

fn case(op: Op<'_>, slice: LocalMemorySlice, remote: RemoteMemorySlice) {
    op.imm(1).read(1, &[slice], remote);
}

fn main() {}
