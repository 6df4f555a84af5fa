//! Safe receives of a shared receive queue go into shared memory.

use ibverbs::{MemoryRegion, RecvRequest, Result, SharedReceiveQueue, SharedRegion};

fn case(srq: SharedReceiveQueue, _: MemoryRegion, region: SharedRegion) -> Result<()> {
    srq.post_recv_shared([RecvRequest::shared(1, &[region.slice(..8)])])
}

fn main() {}
