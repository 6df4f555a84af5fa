//! Closing consumes the queue pair.
//~ error[E0382]: borrow of moved value: `qp`

use ibverbs::{QueuePair, Rc};

fn case(qp: QueuePair<Rc>) -> ibverbs::Result<u32> {
    qp.close()?;
    let number = qp.qp_num();
    Ok(number)
}

fn main() {}
