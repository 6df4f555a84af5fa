//! What is posted to a full send queue may damage it.

use ibverbs::{MemoryRegion, MemoryWindow, QueuePair, Rc, WindowType1};

fn case(qp: &mut QueuePair<Rc>, window: &mut MemoryWindow<WindowType1>, region: &MemoryRegion) {
    let _ = unsafe { qp.unbind_window(1, window, region) };
}

fn main() {}
