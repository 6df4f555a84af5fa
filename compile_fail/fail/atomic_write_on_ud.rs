//! A datagram transport has no atomic writes.
//~ error[E0277]: `Ud` is no reliable connection: it has no timers, retries or fences to set

use ibverbs::{RemoteMemorySlice, SendOp};

type Op<'b> = SendOp<'b, ibverbs::Ud>;

fn case(op: Op<'_>, remote: RemoteMemorySlice) {
    op.atomic_write(1, remote, 2);
}

fn main() {}
