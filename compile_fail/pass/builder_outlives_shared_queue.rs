//! A builder borrows what the queue pair is made of.

use ibverbs::{QueuePairBuilder, Rc, Result, SharedReceiveQueue};

fn case(builder: QueuePairBuilder<'_, Rc>, srq: SharedReceiveQueue) -> Result<()> {
    let builder = builder.set_srq(&srq);
    builder.build().map(drop)?;
    drop(srq);
    Ok(())
}

fn main() {}
