//! Taking over consumes the queue pair.

use ibverbs::{QueuePair, Rc, Reset};

fn case(qp: QueuePair<Rc, Reset>) -> ibverbs::Result<()> {
    let next = qp.into_manual();
    println!("{}", next.qp_num());
    Ok(next.close()?)
}

fn main() {}
