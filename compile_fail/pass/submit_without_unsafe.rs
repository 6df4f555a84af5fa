//! Whoever submits a batch promises what the device may do with the memory.

use ibverbs::{Rc, SendBatch};

fn case(batch: SendBatch<'_, Rc>) -> ibverbs::Result<()> {
    unsafe { batch.submit() }
}

fn main() {}
