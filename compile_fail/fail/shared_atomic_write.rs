//! The interface of a shared batch has no atomic writes.
//~ error[E0599]: no method named `atomic_write` found for struct `SendOp<'_, ibverbs::Rc, Shared>`

use ibverbs::{RemoteMemorySlice, SendOp};

type Op<'b> = SendOp<'b, ibverbs::Rc, ibverbs::Shared>;

fn case(op: Op<'_>, remote: RemoteMemorySlice) {
    op.atomic_write(1, remote, 2);
}

fn main() {}
