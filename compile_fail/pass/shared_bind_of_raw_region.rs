//! A window to memory that may be seen as a Rust slice is not bound without a promise.

use ibverbs::{AccessFlags, MemoryRegion, MemoryWindow, QueuePair, Rc, SharedRegion, WindowType1};

type Window = MemoryWindow<WindowType1>;

fn case(qp: &mut QueuePair<Rc>, window: &mut Window, (_, region): (&MemoryRegion, &SharedRegion)) {
    let _ = qp.bind_window_shared(1, window, region, .., AccessFlags::REMOTE_READ);
}

fn main() {}
