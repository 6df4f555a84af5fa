//! A queue pair gets its peer once.
//~ error[E0599]: no method named `ready_to_receive` found for struct `QueuePair<ibverbs::Rc, Rtr>`

use ibverbs::{QueuePair, QueuePairEndpoint};

type Pair = QueuePair<ibverbs::Rc, ibverbs::Rtr>;

fn case(qp: Pair, remote: QueuePairEndpoint) {
    let _qp = qp.ready_to_receive(remote);
}

fn main() {}
