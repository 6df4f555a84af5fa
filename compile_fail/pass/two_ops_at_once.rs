//! One operation is named before the next begins.

use ibverbs::{Rc, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>) {
    let first = batch.op();
    first.send(1, b"hello");
    let second = batch.op();
    second.send(2, b"hello");
}

fn main() {}
