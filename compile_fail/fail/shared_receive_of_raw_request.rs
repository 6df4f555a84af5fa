//! Safe receives go into shared memory.
//~ error[E0277]: the trait bound `[RecvRequest<'_>; 1]: AsMut<[RecvRequest<'_, Shared>]>` is not satisfied

use ibverbs::{MemoryRegion, QueuePair, Rc, RecvRequest, Result, SharedRegion};

fn case(mut qp: QueuePair<Rc>, region: MemoryRegion, _: SharedRegion) -> Result<()> {
    qp.post_recv_shared([RecvRequest::new(1, &[region.slice(..8)])])
}

fn main() {}
