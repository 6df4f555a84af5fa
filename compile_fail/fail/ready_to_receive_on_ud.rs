//! A datagram queue pair answers to nobody in particular: `activate` is its way up.
//~ error[E0277]: `Ud` is not connected: address each operation with `.to(&ah, qpn, qkey)`

use ibverbs::{Init, QueuePair, QueuePairEndpoint};

type Pair = QueuePair<ibverbs::Ud, Init>;

fn case(init: Pair, remote: QueuePairEndpoint) {
    let _rtr = init.ready_to_receive(remote);
}

fn main() {}
