//! Activating consumes the queue pair.
//~ error[E0382]: borrow of moved value: `qp`

use ibverbs::{QueuePair, Reset, Ud};

fn case(qp: QueuePair<Ud, Reset>) -> ibverbs::Result<()> {
    let next = qp.activate(0x1234)?;
    println!("{}", qp.qp_num());
    Ok(next.close()?)
}

fn main() {}
