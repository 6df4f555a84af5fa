//! Closing consumes the queue pair.

use ibverbs::{QueuePair, Rc};

fn case(qp: QueuePair<Rc>) -> ibverbs::Result<u32> {
    let number = qp.qp_num();
    qp.close()?;
    Ok(number)
}

fn main() {}
