//! A datagram transport writes to no memory that could be flushed.

use ibverbs::{FlushLevel, FlushPlacement, RemoteMemorySlice, SendOp};

type Op<'b> = SendOp<'b, ibverbs::Rc>;

fn case(op: Op<'_>, remote: RemoteMemorySlice) {
    op.flush(1, remote, FlushPlacement::GLOBAL, FlushLevel::Range);
}

fn main() {}
