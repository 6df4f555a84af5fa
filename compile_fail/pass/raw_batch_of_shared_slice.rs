//! A raw batch takes slices of a memory region.

use ibverbs::{QueuePair, Rc, Result, SharedRegion};

fn case(mut qp: QueuePair<Rc>, region: SharedRegion) -> Result<()> {
    let mut batch = qp.start_shared();
    batch.op().send(1, &[region.slice(..8)]);
    batch.submit()
}

fn main() {}
