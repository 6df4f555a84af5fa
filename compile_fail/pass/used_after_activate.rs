//! Activating consumes the queue pair.

use ibverbs::{QueuePair, Reset, Ud};

fn case(qp: QueuePair<Ud, Reset>) -> ibverbs::Result<()> {
    let next = qp.activate(0x1234)?;
    println!("{}", next.qp_num());
    Ok(next.close()?)
}

fn main() {}
