//! A window of type 1 is bound by a call of its own.
//~ error[E0308]: mismatched types

use ibverbs::{AccessFlags, MemoryRegion, MemoryWindow, Rc, SendOp};

type Case<T> = fn(SendOp<'_, Rc>, &mut MemoryWindow<T>, &MemoryRegion);

const CASE: Case<ibverbs::WindowType1> = |op, window, region| {
    unsafe { op.bind_window(1, window, region, .., AccessFlags::REMOTE_READ) };
};

fn main() {}
