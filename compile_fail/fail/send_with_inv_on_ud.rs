//! Windows are for the peer of a connection.
//~ error[E0277]: `Ud` is not connected: address each operation with `.to(&ah, qpn, qkey)`

use ibverbs::SendOp;

fn case(op: SendOp<'_, ibverbs::Ud>, rkey: u32) {
    op.send_with_inv(1, b"done", rkey);
}

fn main() {}
