//! A receive of shared memory borrows its region until it is posted.

use ibverbs::{QueuePair, Rc, RecvRequest, Result, SharedRegion};

fn case(mut qp: QueuePair<Rc>, region: SharedRegion) -> Result<()> {
    let slices = [region.slice(..8)];
    let request = RecvRequest::shared(1, &slices);
    qp.post_recv_shared([request])?;
    Ok(drop(region))
}

fn main() {}
