//! A call of its own binds windows of type 1: those of type 2 are bound in a batch.

use ibverbs::{AccessFlags, MemoryWindow, QueuePair, Rc, SharedRegion};

type Window = MemoryWindow<ibverbs::WindowType1>;

fn case(qp: &mut QueuePair<Rc>, window: &mut Window, region: &SharedRegion) {
    let _ = qp.bind_window_shared(1, window, region, .., AccessFlags::REMOTE_READ);
}

fn main() {}
