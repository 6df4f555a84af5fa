//! A batch is not submitted while an operation of it is being described.

use ibverbs::{Rc, SendBatch};

fn case(mut batch: SendBatch<'_, Rc>) -> ibverbs::Result<()> {
    let op = batch.op();
    op.send(1, b"hello");
    let submitted = unsafe { batch.submit() };
    submitted
}

fn main() {}
