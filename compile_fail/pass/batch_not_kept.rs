//! A batch that is not kept posts nothing.

#![deny(unused_must_use)]

use ibverbs::{QueuePair, Rc};

fn case(qp: &mut QueuePair<Rc>) {
    let mut batch = qp.start_send();
    batch.op().send(1, b"hello");
}

fn main() {}
