//! The interface of a shared batch has no sends that withdraw a key.
//~ error[E0599]: no method named `send_with_inv` found for struct `SendOp<'_, ibverbs::Rc, Shared>`

use ibverbs::SendOp;

type Op<'b> = SendOp<'b, ibverbs::Rc, ibverbs::Shared>;

fn case(op: Op<'_>, rkey: u32) {
    op.send_with_inv(1, b"done", rkey);
}

fn main() {}
