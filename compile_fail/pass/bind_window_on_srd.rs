//! Windows are for the peer of a connection.

use ibverbs::{AccessFlags, MemoryRegion, MemoryWindow, SendOp};

fn case(op: SendOp<'_, ibverbs::Rc>, window: &mut MemoryWindow, region: &MemoryRegion) {
    unsafe { op.bind_window(1, window, region, .., AccessFlags::REMOTE_READ) };
}

fn main() {}
