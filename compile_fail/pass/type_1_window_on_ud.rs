//! Windows are for the peer of a connection.

use ibverbs::{AccessFlags, MemoryRegion, MemoryWindow, WindowType1};

type QueuePair = ibverbs::QueuePair<ibverbs::Rc>;

fn case(qp: &mut QueuePair, window: &mut MemoryWindow<WindowType1>, region: &MemoryRegion) {
    let _ = unsafe { qp.bind_window(1, window, region, .., AccessFlags::REMOTE_READ) };
}

fn main() {}
