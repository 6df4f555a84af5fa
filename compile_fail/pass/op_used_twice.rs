//! An operation is added to its batch once.

use ibverbs::{Rc, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>) {
    let op = batch.op();
    op.send(1, b"hello");
    let op = batch.op();
    op.send(2, b"hello");
}

fn main() {}
