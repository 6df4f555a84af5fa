//! Nothing waits for reads where there are none, in a shared batch either.

use ibverbs::{SendOp, Shared};

type Op<'b> = SendOp<'b, ibverbs::Rc, Shared>;

fn case(op: Op<'_>) {
    op.fenced().send(1, b"hello");
}

fn main() {}
