//! The interface of a shared batch has no flushes.
//~ error[E0599]: no method named `flush` found for struct `SendOp<'_, ibverbs::Rc, Shared>`

use ibverbs::{FlushLevel, FlushPlacement, RemoteMemorySlice, SendOp};

type Op<'b> = SendOp<'b, ibverbs::Rc, ibverbs::Shared>;

fn case(op: Op<'_>, remote: RemoteMemorySlice) {
    op.flush(1, remote, FlushPlacement::GLOBAL, FlushLevel::Range);
}

fn main() {}
