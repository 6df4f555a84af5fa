//! An operation that is described but not named posts nothing.
//~ error: unused `SendOp` that must be used

#![deny(unused_must_use)]

use ibverbs::{Rc, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>) {
    batch.op().signaled();
}

fn main() {}
