//! A queue pair that was only initialised cannot send.
//~ error[E0277]: a queue pair in state `Init` cannot send

use ibverbs::{QueuePair, Rc};

fn case(mut qp: QueuePair<Rc, ibverbs::Init>) {
    let mut batch = qp.start_send();
    batch.op().send(1, b"hello");
}

fn main() {}
