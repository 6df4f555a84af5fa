//! An operation is described in the thread that began its batch.

use ibverbs::{MemoryRegion, Rc, SendBatch};

fn send<T: Send>(_: T) {}

fn case(batch: &mut SendBatch<'_, Rc>, region: &MemoryRegion) {
    let op = batch.op();
    send(region.slice(..));
    op.send(1, b"hello");
}

fn main() {}
