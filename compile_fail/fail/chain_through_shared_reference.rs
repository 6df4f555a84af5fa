//! A chain is posted by one thread at a time: providers may write into it.
//~ error[E0308]: mismatched types

use ibverbs::{QueuePair, Rc, RecvChain, Result};

fn case(qp: &mut QueuePair<Rc>, chain: &RecvChain) -> Result<()> {
    unsafe { qp.post_chain(chain) }
}

fn main() {}
