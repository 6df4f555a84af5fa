//! Windows are for the peer of a connection.
//~ error[E0277]: `Srd` is not connected: address each operation with `.to(&ah, qpn, qkey)`

use ibverbs::{AccessFlags, MemoryRegion, MemoryWindow, SendOp};

fn case(op: SendOp<'_, ibverbs::Srd>, window: &mut MemoryWindow, region: &MemoryRegion) {
    unsafe { op.bind_window(1, window, region, .., AccessFlags::REMOTE_READ) };
}

fn main() {}
