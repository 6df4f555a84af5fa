//! The device writes into the memory of a receive.
//~ error[E0133]: call to unsafe function

use ibverbs::{RecvRequest, Result, SharedReceiveQueue};

fn case(srq: &SharedReceiveQueue) -> Result<()> {
    srq.post_recv([RecvRequest::new(1, &[])])
}

fn main() {}
