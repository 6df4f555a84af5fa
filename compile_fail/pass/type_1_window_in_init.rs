//! Binding a window is a send request.

use ibverbs::{AccessFlags, MemoryWindow, QueuePair, Rc, SharedRegion, WindowType1};

type Window = MemoryWindow<WindowType1>;

fn case(qp: &mut QueuePair<Rc, ibverbs::Rts>, window: &mut Window, region: &SharedRegion) {
    let _ = qp.bind_window_shared(1, window, region, .., AccessFlags::REMOTE_READ);
}

fn main() {}
