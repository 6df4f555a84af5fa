//! Ready to send comes after ready to receive.
//~ error[E0599]: no method named `ready_to_send` found for struct `QueuePair<ibverbs::Rc, Init>`

use ibverbs::{QueuePair, Rc};

fn case(qp: QueuePair<Rc, ibverbs::Init>) -> ibverbs::Result<()> {
    let sending = qp.ready_to_send()?;
    Ok(sending.close()?)
}

fn main() {}
