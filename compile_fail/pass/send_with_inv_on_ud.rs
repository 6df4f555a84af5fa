//! Windows are for the peer of a connection.

use ibverbs::SendOp;

fn case(op: SendOp<'_, ibverbs::Rc>, rkey: u32) {
    op.send_with_inv(1, b"done", rkey);
}

fn main() {}
