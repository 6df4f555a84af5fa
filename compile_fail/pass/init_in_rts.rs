//! A queue pair is initialised once.

use ibverbs::QueuePair;

type Pair = QueuePair<ibverbs::Rc, ibverbs::Reset>;

fn case(qp: Pair) {
    let _qp = qp.init();
}

fn main() {}
