//! Whoever has the key may use what a window shows.

use ibverbs::{AccessFlags, MemoryRegion, MemoryWindow, QueuePair, Rc, Type1};

fn case(qp: &mut QueuePair<Rc>, window: &mut MemoryWindow<Type1>, region: &MemoryRegion) {
    let _ = unsafe { qp.bind_window(1, window, region, .., AccessFlags::REMOTE_READ) };
}

fn main() {}
