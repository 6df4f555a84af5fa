//! Windows are for the peer of a connection.

use ibverbs::SendOp;

type Op<'b> = SendOp<'b, ibverbs::Rc>;

fn case(op: Op<'_>, rkey: u32) {
    op.send_with_inv(1, b"done", rkey);
}

fn main() {}
