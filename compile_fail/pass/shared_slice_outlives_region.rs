//! A slice of shared memory borrows its region: what is gone is not posted.

use ibverbs::{QueuePair, Rc, Result, SharedRegion};

fn case(mut qp: QueuePair<Rc>, region: SharedRegion) -> Result<()> {
    let slice = region.slice(..8);
    let mut batch = qp.start_shared();
    batch.op().send(1, &[slice]);
    drop(region);
    batch.submit()
}

fn main() {}
