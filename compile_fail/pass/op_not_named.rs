//! An operation that is described but not named posts nothing.

#![deny(unused_must_use)]

use ibverbs::{Rc, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>) {
    batch.op().signaled().send(1, b"hello");
}

fn main() {}
