//! The handshake begins before the queue pair has a peer.
//~ error[E0277]: a queue pair in state `Rtr` is past its bring-up

use ibverbs::{QueuePair, QueuePairEndpoint, Rc};

fn case(qp: QueuePair<Rc, ibverbs::Rtr>, remote: QueuePairEndpoint) -> ibverbs::Result<()> {
    let connected = qp.handshake(remote)?;
    Ok(connected.close()?)
}

fn main() {}
