//! A queue pair gets ready to send once.

use ibverbs::QueuePair;

type Pair = QueuePair<ibverbs::Rc, ibverbs::Rtr>;

fn case(qp: Pair) {
    let _qp = qp.ready_to_send();
}

fn main() {}
