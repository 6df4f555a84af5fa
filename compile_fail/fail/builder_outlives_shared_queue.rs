//! A builder borrows what the queue pair is made of.
//~ error[E0505]: cannot move out of `srq` because it is borrowed

use ibverbs::{QueuePairBuilder, Rc, Result, SharedReceiveQueue};

fn case(builder: QueuePairBuilder<'_, Rc>, srq: SharedReceiveQueue) -> Result<()> {
    let builder = builder.set_srq(&srq);
    drop(srq);
    builder.build().map(drop)
}

fn main() {}
