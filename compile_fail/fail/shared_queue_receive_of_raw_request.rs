//! Safe receives of a shared receive queue go into shared memory.
//~ error[E0277]: the trait bound `[RecvRequest<'_>; 1]: AsMut<[RecvRequest<'_, Shared>]>` is not satisfied

use ibverbs::{MemoryRegion, RecvRequest, Result, SharedReceiveQueue, SharedRegion};

fn case(srq: SharedReceiveQueue, region: MemoryRegion, _: SharedRegion) -> Result<()> {
    srq.post_recv_shared([RecvRequest::new(1, &[region.slice(..8)])])
}

fn main() {}
