//! A batch is not submitted while an operation of it is being described.
//~ error[E0505]: cannot move out of `batch` because it is borrowed

use ibverbs::{Rc, SendBatch};

fn case(mut batch: SendBatch<'_, Rc>) -> ibverbs::Result<()> {
    let op = batch.op();
    let submitted = unsafe { batch.submit() };
    op.send(1, b"hello");
    submitted
}

fn main() {}
