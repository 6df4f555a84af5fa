//! A transition consumes the queue pair.
//~ error[E0382]: borrow of moved value: `prepared`

use ibverbs::{PreparedQueuePair, QueuePairEndpoint, Rc};

fn case(prepared: PreparedQueuePair<Rc>, remote: QueuePairEndpoint) -> ibverbs::Result<()> {
    let connected = prepared.handshake(remote)?;
    println!("{}", prepared.qp_num());
    Ok(connected.close()?)
}

fn main() {}
