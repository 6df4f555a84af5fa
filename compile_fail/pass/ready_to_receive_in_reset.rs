//! Ready to receive comes after initialised.

use ibverbs::{QueuePair, QueuePairEndpoint, Rc};

fn case(qp: QueuePair<Rc, ibverbs::Init>, remote: QueuePairEndpoint) -> ibverbs::Result<()> {
    let receiving = qp.ready_to_receive(remote)?;
    Ok(receiving.close()?)
}

fn main() {}
