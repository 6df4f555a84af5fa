//! Binding a window is a send request.
//~ error[E0277]: a queue pair in state `Rtr` cannot send

use ibverbs::{AccessFlags, MemoryRegion, MemoryWindow, QueuePair, Rc, WindowType1};

type Window = MemoryWindow<WindowType1>;

fn case(qp: &mut QueuePair<Rc, ibverbs::Rtr>, window: &mut Window, region: &MemoryRegion) {
    let _ = unsafe { qp.bind_window(1, window, region, .., AccessFlags::REMOTE_READ) };
}

fn main() {}
