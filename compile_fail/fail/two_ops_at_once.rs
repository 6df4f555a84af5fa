//! One operation is named before the next begins.
//~ error[E0499]: cannot borrow `*batch` as mutable more than once at a time

use ibverbs::{Rc, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>) {
    let first = batch.op();
    let second = batch.op();
    first.send(1, b"hello");
    second.send(2, b"hello");
}

fn main() {}
