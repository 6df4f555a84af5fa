//! A peer may use what a window shows.
//~ error[E0133]: call to unsafe function

use ibverbs::{AccessFlags, MemoryRegion, MemoryWindow, Rc, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>, window: &mut MemoryWindow, region: &MemoryRegion) {
    batch.op().bind_window(1, window, region, .., AccessFlags::REMOTE_READ);
}

fn main() {}
