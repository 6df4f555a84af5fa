//! Operations of SRD may overtake each other, and nothing waits for those before it.
//~ error[E0277]: `Srd` is no reliable connection: it has no timers, retries or fences to set

use ibverbs::SendOp;

type Op<'b> = SendOp<'b, ibverbs::Srd>;

fn case(op: Op<'_>) {
    op.fenced().send(1, b"hello");
}

fn main() {}
