//! An operation is added to its batch once.
//~ error[E0382]: use of moved value: `op`

use ibverbs::{Rc, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>) {
    let op = batch.op();
    op.send(1, b"hello");
    op.send(2, b"hello");
}

fn main() {}
