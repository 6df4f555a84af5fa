//! SRD has no atomic writes.
//~ error[E0277]: `Srd` is no reliable connection: it has no timers, retries or fences to set

use ibverbs::{RemoteMemorySlice, SendOp};

type Op<'b> = SendOp<'b, ibverbs::Srd>;

fn case(op: Op<'_>, remote: RemoteMemorySlice) {
    op.atomic_write(1, remote, 2);
}

fn main() {}
