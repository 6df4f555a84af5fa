//! A queue pair is connected once.

use ibverbs::{QueuePair, QueuePairEndpoint, Rc};

fn case(qp: QueuePair<Rc, ibverbs::Init>, remote: QueuePairEndpoint) -> ibverbs::Result<()> {
    let connected = qp.handshake(remote)?;
    Ok(connected.close()?)
}

fn main() {}
