//! Nothing waits for reads where there are none, in a shared batch either.
//~ error[E0277]: `Uc` is no reliable connection: it has no timers, retries or fences to set

use ibverbs::{SendOp, Shared};

type Op<'b> = SendOp<'b, ibverbs::Uc, Shared>;

fn case(op: Op<'_>) {
    op.fenced().send(1, b"hello");
}

fn main() {}
