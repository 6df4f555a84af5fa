//! Between datagrams there is no order, and nothing that a fence could wait for.

use ibverbs::SendOp;

type Op<'b> = SendOp<'b, ibverbs::Rc>;

fn case(op: Op<'_>) {
    op.fenced().send(1, b"hello");
}

fn main() {}
