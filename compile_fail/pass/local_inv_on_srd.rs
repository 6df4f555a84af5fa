//! SRD has no windows, and so no keys to withdraw.

use ibverbs::SendOp;

type Op<'b> = SendOp<'b, ibverbs::Rc>;

fn case(op: Op<'_>) {
    op.local_inv(1, 0x1234);
}

fn main() {}
