//! Closing consumes the shared receive queue.
//~ error[E0382]: borrow of moved value: `srq`

use ibverbs::SharedReceiveQueue;

fn case(srq: SharedReceiveQueue) -> ibverbs::Result<()> {
    srq.close()?;
    srq.set_limit(1)?;
    Ok(())
}

fn main() {}
