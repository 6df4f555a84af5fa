//! Binding a window is a send request.
//~ error[E0277]: a queue pair in state `Init` cannot send

use ibverbs::{AccessFlags, MemoryWindow, QueuePair, Rc, SharedRegion, WindowType1};

type Window = MemoryWindow<WindowType1>;

fn case(qp: &mut QueuePair<Rc, ibverbs::Init>, window: &mut Window, region: &SharedRegion) {
    let _ = qp.bind_window_shared(1, window, region, .., AccessFlags::REMOTE_READ);
}

fn main() {}
