//! A shared batch withdraws no keys.
//~ error[E0599]: no method named `local_inv` found for struct `SendOp<'_, ibverbs::Rc, Shared>`

use ibverbs::SendOp;

type Op<'b> = SendOp<'b, ibverbs::Rc, ibverbs::Shared>;

fn case(op: Op<'_>) {
    op.local_inv(1, 0x1234);
}

fn main() {}
