//! A slice of shared memory borrows its region: what is gone is not posted.
//~ error[E0505]: cannot move out of `region` because it is borrowed

use ibverbs::{QueuePair, Rc, Result, SharedRegion};

fn case(mut qp: QueuePair<Rc>, region: SharedRegion) -> Result<()> {
    let slice = region.slice(..8);
    drop(region);
    let mut batch = qp.start_shared();
    batch.op().send(1, &[slice]);
    batch.submit()
}

fn main() {}
