//! The device writes into the memory of each receive.

use ibverbs::{RecvChain, Result, SharedReceiveQueue};

fn case(srq: &SharedReceiveQueue, chain: &mut RecvChain) -> Result<()> {
    unsafe { srq.post_chain(chain) }
}

fn main() {}
