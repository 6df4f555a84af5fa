//! Binding a window is a send request.

use ibverbs::{AccessFlags, MemoryRegion, MemoryWindow, QueuePair, Rc, WindowType1};

type Window = MemoryWindow<WindowType1>;

fn case(qp: &mut QueuePair<Rc, ibverbs::Rts>, window: &mut Window, region: &MemoryRegion) {
    let _ = unsafe { qp.bind_window(1, window, region, .., AccessFlags::REMOTE_READ) };
}

fn main() {}
