//! A transition consumes the queue pair.

use ibverbs::{QueuePair, Rc, Rtr};

fn case(qp: QueuePair<Rc, Rtr>) -> ibverbs::Result<()> {
    let next = qp.ready_to_send()?;
    println!("{}", next.qp_num());
    Ok(next.close()?)
}

fn main() {}
