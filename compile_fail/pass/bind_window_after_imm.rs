//! A bind carries no immediate data.

use ibverbs::{AccessFlags, MemoryRegion, MemoryWindow, Rc, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>, window: &mut MemoryWindow, region: &MemoryRegion) {
    let op = batch.op();
    unsafe { op.bind_window(1, window, region, .., AccessFlags::REMOTE_READ) };
}

fn main() {}
