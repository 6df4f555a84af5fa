//! Ready to receive comes after initialised.
//~ error[E0599]: no method named `ready_to_receive` found for struct `QueuePair<ibverbs::Rc, Reset>`

use ibverbs::{QueuePair, QueuePairEndpoint, Rc};

fn case(qp: QueuePair<Rc, ibverbs::Reset>, remote: QueuePairEndpoint) -> ibverbs::Result<()> {
    let receiving = qp.ready_to_receive(remote)?;
    Ok(receiving.close()?)
}

fn main() {}
