//! A shared batch binds no windows: a call of its own does.

use ibverbs::{AccessFlags, MemoryWindow, QueuePair, Rc, Result, SharedRegion, WindowType1};

fn case(
    mut qp: QueuePair<Rc>,
    mut window: MemoryWindow<WindowType1>,
    region: SharedRegion,
) -> Result<()> {
    let access = AccessFlags::REMOTE_READ;
    qp.bind_window_shared(1, &mut window, &region, .., access)?;
    let batch = qp.start_shared();
    batch.submit()
}

fn main() {}
