//! Binding a window is a send request.

use ibverbs::{AccessFlags, MemoryRegion, MemoryWindow, QueuePair, Rc, Type1};

type Window = MemoryWindow<Type1>;

fn case(qp: &mut QueuePair<Rc, ibverbs::Rts>, window: &mut Window, region: &MemoryRegion) {
    let _ = unsafe { qp.bind_window(1, window, region, .., AccessFlags::REMOTE_READ) };
}

fn main() {}
