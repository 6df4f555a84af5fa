//! A queue pair of SRD is connected to nobody.
//~ error[E0277]: `Srd` is not connected: address each operation with `.to(&ah, qpn, qkey)`

use ibverbs::{PreparedQueuePair, QueuePairEndpoint};

type Prepared = PreparedQueuePair<ibverbs::Srd>;

fn case(prepared: Prepared, remote: QueuePairEndpoint) {
    let _qp = prepared.handshake(remote);
}

fn main() {}
