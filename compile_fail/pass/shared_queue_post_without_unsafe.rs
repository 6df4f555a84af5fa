//! The device writes into the memory of a receive.

use ibverbs::{RecvRequest, Result, SharedReceiveQueue};

fn case(srq: &SharedReceiveQueue) -> Result<()> {
    unsafe { srq.post_recv([RecvRequest::new(1, &[])]) }
}

fn main() {}
