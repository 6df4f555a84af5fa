//! A slice of shared memory borrows its region, which is not given away meanwhile.
//~ error[E0505]: cannot move out of `region` because it is borrowed

use ibverbs::{QueuePair, Rc, RecvRequest, SharedRegion};

fn case(region: SharedRegion, qp: &mut QueuePair<Rc>) -> ibverbs::Result<()> {
    let slice = region.slice(..8);
    let _moved = region;
    qp.post_recv_shared([RecvRequest::shared(1, &[slice])])?;
    Ok(())
}

fn main() {}
