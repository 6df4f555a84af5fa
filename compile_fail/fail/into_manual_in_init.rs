//! Driving the states by hand begins at the first one.
//~ error[E0599]: no method named `into_manual` found for struct `QueuePair<ibverbs::Rc, Init>`

use ibverbs::QueuePair;

type Pair = QueuePair<ibverbs::Rc, ibverbs::Init>;

fn case(qp: Pair) {
    let _qp = qp.into_manual();
}

fn main() {}
