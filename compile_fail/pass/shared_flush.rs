//! The interface of a shared batch has no flushes.

use ibverbs::{FlushLevel, FlushPlacement, RemoteMemorySlice, SendOp};

type Op<'b> = SendOp<'b, ibverbs::Rc, ibverbs::Raw>;

fn case(op: Op<'_>, remote: RemoteMemorySlice) {
    op.flush(1, remote, FlushPlacement::GLOBAL, FlushLevel::Range);
}

fn main() {}
