//! A shared receive queue is resized by whoever has it exclusively: it may be lost.

use ibverbs::{Result, SharedReceiveQueue};

fn case(srq: &mut SharedReceiveQueue) -> Result<()> {
    srq.resize(100)
}

fn main() {}
