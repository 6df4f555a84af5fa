//! The handshake begins before the queue pair has a peer.

use ibverbs::{QueuePair, QueuePairEndpoint, Rc};

fn case(qp: QueuePair<Rc, ibverbs::Init>, remote: QueuePairEndpoint) -> ibverbs::Result<()> {
    let connected = qp.handshake(remote)?;
    Ok(connected.close()?)
}

fn main() {}
