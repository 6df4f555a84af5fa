//! Whoever has the key may use what a window shows.
//~ error[E0133]: call to unsafe function

use ibverbs::{AccessFlags, MemoryRegion, MemoryWindow, QueuePair, Rc, WindowType1};

fn case(qp: &mut QueuePair<Rc>, window: &mut MemoryWindow<WindowType1>, region: &MemoryRegion) {
    let _ = qp.bind_window(1, window, region, .., AccessFlags::REMOTE_READ);
}

fn main() {}
