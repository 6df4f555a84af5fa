//! A receive of shared memory borrows its region until it is posted.
//~ error[E0505]: cannot move out of `region` because it is borrowed

use ibverbs::{QueuePair, Rc, RecvRequest, Result, SharedRegion};

fn case(mut qp: QueuePair<Rc>, region: SharedRegion) -> Result<()> {
    let slices = [region.slice(..8)];
    let request = RecvRequest::shared(1, &slices);
    drop(region);
    qp.post_recv_shared([request])
}

fn main() {}
