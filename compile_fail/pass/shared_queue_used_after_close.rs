//! Closing consumes the shared receive queue.

use ibverbs::SharedReceiveQueue;

fn case(srq: SharedReceiveQueue) -> ibverbs::Result<()> {
    srq.set_limit(1)?;
    srq.close()?;
    Ok(())
}

fn main() {}
