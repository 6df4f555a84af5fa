//! Driving the states by hand begins at the first one.

use ibverbs::QueuePair;

type Pair = QueuePair<ibverbs::Rc, ibverbs::Reset>;

fn case(qp: Pair) {
    let _qp = qp.into_manual();
}

fn main() {}
