//! The interface of a shared batch has no sends that withdraw a key.

use ibverbs::SendOp;

type Op<'b> = SendOp<'b, ibverbs::Rc, ibverbs::Raw>;

fn case(op: Op<'_>, rkey: u32) {
    op.send_with_inv(1, b"done", rkey);
}

fn main() {}
