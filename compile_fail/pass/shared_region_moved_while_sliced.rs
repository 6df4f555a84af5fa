//! A slice of shared memory borrows its region, which is not given away meanwhile.

use ibverbs::{QueuePair, Rc, RecvRequest, SharedRegion};

fn case(region: SharedRegion, qp: &mut QueuePair<Rc>) -> ibverbs::Result<()> {
    let slice = region.slice(..8);
    qp.post_recv_shared([RecvRequest::shared(1, &[slice])])?;
    let _moved = region;
    Ok(())
}

fn main() {}
