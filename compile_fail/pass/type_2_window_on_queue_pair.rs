//! A window of type 2 is bound in a batch.

use ibverbs::{AccessFlags, MemoryRegion, MemoryWindow, QueuePair, Rc, Result};

type Case<T> = fn(&mut QueuePair<Rc>, &mut MemoryWindow<T>, &MemoryRegion) -> Result<()>;

const CASE: Case<ibverbs::WindowType1> = |qp, window, region| {
    unsafe { qp.bind_window(1, window, region, .., AccessFlags::REMOTE_READ) }.map(drop)
};

fn main() {}
