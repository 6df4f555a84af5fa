//! Driving the states by hand begins at the first one.
//~ error[E0599]: no method named `into_manual` found for struct `QueuePair<ibverbs::Rc>`

use ibverbs::{Manual, QueuePair, Rc};

fn case(qp: QueuePair<Rc, ibverbs::Rts>) -> QueuePair<Rc, Manual> {
    qp.into_manual()
}

fn main() {}
