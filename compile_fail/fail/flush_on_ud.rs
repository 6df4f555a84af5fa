//! A datagram transport writes to no memory that could be flushed.
//~ error[E0277]: `Ud` is no reliable connection: it has no timers, retries or fences to set

use ibverbs::{FlushLevel, FlushPlacement, RemoteMemorySlice, SendOp};

type Op<'b> = SendOp<'b, ibverbs::Ud>;

fn case(op: Op<'_>, remote: RemoteMemorySlice) {
    op.flush(1, remote, FlushPlacement::GLOBAL, FlushLevel::Range);
}

fn main() {}
