//! The device writes into the memory of each receive.
//~ error[E0133]: call to unsafe function

use ibverbs::{QueuePair, Rc, RecvChain, Result};

fn case(qp: &mut QueuePair<Rc>, chain: &mut RecvChain) -> Result<()> {
    qp.post_chain(chain)
}

fn main() {}
