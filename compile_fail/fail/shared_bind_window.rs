//! A shared batch binds no windows: a call of its own does.
//~ error[E0599]: no method named `bind_window` found for struct `SendOp<'_, ibverbs::Rc, Shared>`

use ibverbs::{AccessFlags, MemoryWindow, QueuePair, Rc, Result, SharedRegion, WindowType1};

fn case(
    mut qp: QueuePair<Rc>,
    mut window: MemoryWindow<WindowType1>,
    region: SharedRegion,
) -> Result<()> {
    let access = AccessFlags::REMOTE_READ;
    let mut batch = qp.start_shared();
    batch.op().bind_window(1, &mut window, &region, .., access);
    batch.submit()
}

fn main() {}
