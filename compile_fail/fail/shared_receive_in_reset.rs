//! A queue pair that was only created takes no safe receives either.
//~ error[E0277]: a queue pair in state `Reset` cannot take receives

use ibverbs::{PreparedQueuePair, Rc, RecvRequest, Result, SharedRegion};

fn case(mut qp: PreparedQueuePair<Rc>, region: SharedRegion) -> Result<()> {
    qp.post_recv_shared([RecvRequest::shared(1, &[region.slice(..8)])])
}

fn main() {}
