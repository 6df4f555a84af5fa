//! Taking over consumes the queue pair.
//~ error[E0382]: borrow of moved value: `qp`

use ibverbs::{QueuePair, Rc, Reset};

fn case(qp: QueuePair<Rc, Reset>) -> ibverbs::Result<()> {
    let next = qp.into_manual();
    println!("{}", qp.qp_num());
    Ok(next.close()?)
}

fn main() {}
