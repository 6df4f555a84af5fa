//! A send that invalidates a key carries the key where others carry immediate data.
//~ error[E0277]: an operation that carries immediate data is a `send` or a `write`

use ibverbs::{Rc, SendOp};

fn case(op: SendOp<'_, Rc>) {
    op.imm(5).send_with_inv(1, b"hello", 0x1234);
}

fn main() {}
