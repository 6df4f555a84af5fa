//! Ready to send comes after ready to receive.

use ibverbs::{QueuePair, Rc};

fn case(qp: QueuePair<Rc, ibverbs::Rtr>) -> ibverbs::Result<()> {
    let sending = qp.ready_to_send()?;
    Ok(sending.close()?)
}

fn main() {}
