//! A transition consumes the queue pair.
//~ error[E0382]: borrow of moved value: `qp`

use ibverbs::{QueuePair, Rc, Rtr};

fn case(qp: QueuePair<Rc, Rtr>) -> ibverbs::Result<()> {
    let next = qp.ready_to_send()?;
    println!("{}", qp.qp_num());
    Ok(next.close()?)
}

fn main() {}
