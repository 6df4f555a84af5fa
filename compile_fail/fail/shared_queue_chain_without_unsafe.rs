//! The device writes into the memory of each receive.
//~ error[E0133]: call to unsafe function

use ibverbs::{RecvChain, Result, SharedReceiveQueue};

fn case(srq: &SharedReceiveQueue, chain: &mut RecvChain) -> Result<()> {
    srq.post_chain(chain)
}

fn main() {}
