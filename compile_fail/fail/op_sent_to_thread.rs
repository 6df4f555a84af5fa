//! An operation is described in the thread that began its batch.
//~ error[E0277]: `*mut ibverbs::Rc` cannot be sent between threads safely

use ibverbs::{MemoryRegion, Rc, SendBatch};

fn send<T: Send>(_: T) {}

fn case(batch: &mut SendBatch<'_, Rc>, region: &MemoryRegion) {
    let op = batch.op();
    send(op);
}

fn main() {}
