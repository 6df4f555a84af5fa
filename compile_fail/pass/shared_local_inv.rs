//! A shared batch withdraws no keys.

use ibverbs::SendOp;

type Op<'b> = SendOp<'b, ibverbs::Rc, ibverbs::Raw>;

fn case(op: Op<'_>) {
    op.local_inv(1, 0x1234);
}

fn main() {}
