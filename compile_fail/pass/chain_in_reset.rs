//! A queue pair takes receives once it is initialised.

use ibverbs::{QueuePair, Rc, RecvChain, Result};

fn case(qp: &mut QueuePair<Rc, ibverbs::Init>, chain: &mut RecvChain) -> Result<()> {
    unsafe { qp.post_chain(chain) }
}

fn main() {}
