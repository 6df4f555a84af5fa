//! A queue pair is connected once.
//~ error[E0277]: a queue pair in state `Rts` is past its bring-up

use ibverbs::{QueuePair, QueuePairEndpoint, Rc};

fn case(qp: QueuePair<Rc, ibverbs::Rts>, remote: QueuePairEndpoint) -> ibverbs::Result<()> {
    let connected = qp.handshake(remote)?;
    Ok(connected.close()?)
}

fn main() {}
