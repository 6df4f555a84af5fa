//! What modifies an operation comes before the call that names it.

use ibverbs::{Rc, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>) {
    batch.op().signaled().send(1, b"hello");
}

fn main() {}
