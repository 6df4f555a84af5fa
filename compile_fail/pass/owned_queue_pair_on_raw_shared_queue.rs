//! A queue pair of the owned level takes no receives whose identifiers are the program's.

use ibverbs::{
    Owned, OwnedQueuePair, OwnedSharedReceiveQueue, QueuePairBuilder, Rc, Reset, Result,
    SharedReceiveQueue,
};

fn case<'a>(
    builder: QueuePairBuilder<'a, Rc, Owned>,
    _: &'a SharedReceiveQueue,
    srq: &'a OwnedSharedReceiveQueue,
) -> Result<OwnedQueuePair<Rc, Reset>> {
    builder.set_srq(srq).build()
}

fn main() {}
