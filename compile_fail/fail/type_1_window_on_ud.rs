//! Windows are for the peer of a connection.
//~ error[E0277]: `Ud` is not connected: address each operation with `.to(&ah, qpn, qkey)`

use ibverbs::{AccessFlags, MemoryRegion, MemoryWindow, WindowType1};

type QueuePair = ibverbs::QueuePair<ibverbs::Ud>;

fn case(qp: &mut QueuePair, window: &mut MemoryWindow<WindowType1>, region: &MemoryRegion) {
    let _ = unsafe { qp.bind_window(1, window, region, .., AccessFlags::REMOTE_READ) };
}

fn main() {}
