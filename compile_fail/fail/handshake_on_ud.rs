//! A datagram queue pair is connected to nobody.
//~ error[E0277]: `Ud` is not connected: address each operation with `.to(&ah, qpn, qkey)`

use ibverbs::{PreparedQueuePair, QueuePairEndpoint};

type Prepared = PreparedQueuePair<ibverbs::Ud>;

fn case(prepared: Prepared, remote: QueuePairEndpoint) {
    let _qp = prepared.handshake(remote);
}

fn main() {}
