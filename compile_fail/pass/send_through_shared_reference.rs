//! Posting sends needs the queue pair exclusively.

use ibverbs::{QueuePair, Rc};

fn case(qp: &mut QueuePair<Rc>) {
    let mut batch = qp.start_send();
    batch.op().send(1, b"hello");
}

fn main() {}
