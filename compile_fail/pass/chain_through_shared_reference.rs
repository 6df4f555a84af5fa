//! A chain is posted by one thread at a time: providers may write into it.

use ibverbs::{QueuePair, Rc, RecvChain, Result};

fn case(qp: &mut QueuePair<Rc>, chain: &mut RecvChain) -> Result<()> {
    unsafe { qp.post_chain(chain) }
}

fn main() {}
