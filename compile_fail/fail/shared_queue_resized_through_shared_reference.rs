//! A shared receive queue is resized by whoever has it exclusively: it may be lost.
//~ error[E0596]: cannot borrow `*srq` as mutable, as it is behind a `&` reference

use ibverbs::{Result, SharedReceiveQueue};

fn case(srq: &SharedReceiveQueue) -> Result<()> {
    srq.resize(100)
}

fn main() {}
