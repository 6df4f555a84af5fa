//! Whoever submits a batch promises what the device may do with the memory.
//~ error[E0133]: call to unsafe function `SendBatch::<'_, T>::submit` is unsafe

use ibverbs::{Rc, SendBatch};

fn case(batch: SendBatch<'_, Rc>) -> ibverbs::Result<()> {
    batch.submit()
}

fn main() {}
