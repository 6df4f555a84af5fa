//! Between datagrams there is no order, and nothing that a fence could wait for.
//~ error[E0277]: `Ud` is no reliable connection: it has no timers, retries or fences to set

use ibverbs::SendOp;

type Op<'b> = SendOp<'b, ibverbs::Ud>;

fn case(op: Op<'_>) {
    op.fenced().send(1, b"hello");
}

fn main() {}
