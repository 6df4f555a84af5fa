//! A batch has its queue pair for itself: windows are bound before or after it.

use ibverbs::{MemoryWindow, QueuePair, Rc, SharedRegion, WindowType1};

type Window = MemoryWindow<WindowType1>;

fn case(qp: &mut QueuePair<Rc>, window: &mut Window, region: &SharedRegion) -> ibverbs::Result<()> {
    let batch = qp.start_shared();
    batch.submit()?;
    qp.unbind_window_shared(1, window, region)?;
    Ok(())
}

fn main() {}
