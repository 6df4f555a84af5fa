//! A send that invalidates a key carries the key where others carry immediate data.

use ibverbs::{Rc, SendOp};

fn case(op: SendOp<'_, Rc>) {
    op.send_with_inv(1, b"hello", 0x1234);
}

fn main() {}
