//! SRD has no windows, and so no keys to withdraw.
//~ error[E0277]: `Srd` is not connected: address each operation with `.to(&ah, qpn, qkey)`

use ibverbs::SendOp;

type Op<'b> = SendOp<'b, ibverbs::Srd>;

fn case(op: Op<'_>) {
    op.local_inv(1, 0x1234);
}

fn main() {}
