//! A queue pair takes receives once it is initialised.
//~ error[E0277]: a queue pair in state `Reset` cannot take receives

use ibverbs::{QueuePair, Rc, RecvChain, Result};

fn case(qp: &mut QueuePair<Rc, ibverbs::Reset>, chain: &mut RecvChain) -> Result<()> {
    unsafe { qp.post_chain(chain) }
}

fn main() {}
