//! Operations of SRD may overtake each other, and nothing waits for those before it.

use ibverbs::SendOp;

type Op<'b> = SendOp<'b, ibverbs::Srd>;

fn case(op: Op<'_>) {
    op.signaled().send(1, b"hello");
}

fn main() {}
