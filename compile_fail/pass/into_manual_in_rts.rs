//! Driving the states by hand begins at the first one.

use ibverbs::{Manual, QueuePair, Rc};

fn case(qp: QueuePair<Rc, ibverbs::Reset>) -> QueuePair<Rc, Manual> {
    qp.into_manual()
}

fn main() {}
