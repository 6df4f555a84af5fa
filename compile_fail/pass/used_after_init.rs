//! A transition consumes the queue pair.

use ibverbs::{QueuePair, Rc, Reset};

fn case(qp: QueuePair<Rc, Reset>) -> ibverbs::Result<()> {
    let next = qp.init()?;
    println!("{}", next.qp_num());
    Ok(next.close()?)
}

fn main() {}
