//! Safe receives go into shared memory.

use ibverbs::{MemoryRegion, QueuePair, Rc, RecvRequest, Result, SharedRegion};

fn case(mut qp: QueuePair<Rc>, _: MemoryRegion, region: SharedRegion) -> Result<()> {
    qp.post_recv_shared([RecvRequest::shared(1, &[region.slice(..8)])])
}

fn main() {}
