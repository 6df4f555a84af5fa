//! A batch that is not kept posts nothing.
//~ error: unused `SendBatch` that must be used

#![deny(unused_must_use)]

use ibverbs::{QueuePair, Rc};

fn case(qp: &mut QueuePair<Rc>) {
    qp.start_send();
}

fn main() {}
