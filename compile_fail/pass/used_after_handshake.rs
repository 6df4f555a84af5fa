//! A transition consumes the queue pair.

use ibverbs::{PreparedQueuePair, QueuePairEndpoint, Rc};

fn case(prepared: PreparedQueuePair<Rc>, remote: QueuePairEndpoint) -> ibverbs::Result<()> {
    let connected = prepared.handshake(remote)?;
    println!("{}", connected.qp_num());
    Ok(connected.close()?)
}

fn main() {}
