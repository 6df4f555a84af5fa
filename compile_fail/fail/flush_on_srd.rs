//! SRD has no flushes.
//~ error[E0277]: `Srd` is no reliable connection: it has no timers, retries or fences to set

use ibverbs::{FlushLevel, FlushPlacement, RemoteMemorySlice, SendOp};

type Op<'b> = SendOp<'b, ibverbs::Srd>;

fn case(op: Op<'_>, remote: RemoteMemorySlice) {
    op.flush(1, remote, FlushPlacement::GLOBAL, FlushLevel::Range);
}

fn main() {}
