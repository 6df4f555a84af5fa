//! A queue pair that is ready to receive cannot send yet.
//~ error[E0277]: a queue pair in state `Rtr` cannot send

use ibverbs::{QueuePair, Rc};

fn case(mut qp: QueuePair<Rc, ibverbs::Rtr>) {
    let mut batch = qp.start_send();
    batch.op().send(1, b"hello");
}

fn main() {}
