//! A queue pair gets its peer once.

use ibverbs::{QueuePair, QueuePairEndpoint};

type Pair = QueuePair<ibverbs::Rc, ibverbs::Init>;

fn case(qp: Pair, remote: QueuePairEndpoint) {
    let _qp = qp.ready_to_receive(remote);
}

fn main() {}
