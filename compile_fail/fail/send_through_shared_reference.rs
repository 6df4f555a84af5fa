//! Posting sends needs the queue pair exclusively.
//~ error[E0596]: cannot borrow `*qp` as mutable, as it is behind a `&` reference

use ibverbs::{QueuePair, Rc};

fn case(qp: &QueuePair<Rc>) {
    let mut batch = qp.start_send();
    batch.op().send(1, b"hello");
}

fn main() {}
