//! A queue pair that was only created takes no safe receives either.

use ibverbs::{PreparedQueuePair, Rc, RecvRequest, Result, SharedRegion};

fn case(qp: PreparedQueuePair<Rc>, region: SharedRegion) -> Result<()> {
    let mut qp = qp.init()?;
    qp.post_recv_shared([RecvRequest::shared(1, &[region.slice(..8)])])
}

fn main() {}
