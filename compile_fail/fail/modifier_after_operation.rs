//! What modifies an operation comes before the call that names it.
//~ error[E0599]: no method named `signaled` found for unit type `()`

use ibverbs::{Rc, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>) {
    batch.op().send(1, b"hello").signaled();
}

fn main() {}
