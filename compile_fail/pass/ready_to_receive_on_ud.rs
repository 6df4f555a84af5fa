//! A datagram queue pair answers to nobody in particular: `activate` is its way up.

use ibverbs::{Init, QueuePair, QueuePairEndpoint};

type Pair = QueuePair<ibverbs::Rc, Init>;

fn case(init: Pair, remote: QueuePairEndpoint) {
    let _rtr = init.ready_to_receive(remote);
}

fn main() {}
