//! A bind carries no immediate data.
//~ error[E0277]: an operation that carries immediate data is a `send` or a `write`

use ibverbs::{AccessFlags, MemoryRegion, MemoryWindow, Rc, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>, window: &mut MemoryWindow, region: &MemoryRegion) {
    let op = batch.op().imm(7);
    unsafe { op.bind_window(1, window, region, .., AccessFlags::REMOTE_READ) };
}

fn main() {}
