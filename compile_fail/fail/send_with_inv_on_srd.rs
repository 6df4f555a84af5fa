//! Windows are for the peer of a connection.
//~ error[E0277]: `Srd` is not connected: address each operation with `.to(&ah, qpn, qkey)`

use ibverbs::SendOp;

type Op<'b> = SendOp<'b, ibverbs::Srd>;

fn case(op: Op<'_>, rkey: u32) {
    op.send_with_inv(1, b"done", rkey);
}

fn main() {}
