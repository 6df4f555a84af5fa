//! A queue pair of SRD is connected to nobody.

use ibverbs::{PreparedQueuePair, QueuePairEndpoint};

type Prepared = PreparedQueuePair<ibverbs::Rc>;

fn case(prepared: Prepared, remote: QueuePairEndpoint) {
    let _qp = prepared.handshake(remote);
}

fn main() {}
