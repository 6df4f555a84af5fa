//! The device writes into the memory of each receive.

use ibverbs::{QueuePair, Rc, RecvChain, Result};

fn case(qp: &mut QueuePair<Rc>, chain: &mut RecvChain) -> Result<()> {
    unsafe { qp.post_chain(chain) }
}

fn main() {}
