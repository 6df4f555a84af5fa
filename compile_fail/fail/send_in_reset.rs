//! A queue pair that was only created cannot send.
//~ error[E0277]: a queue pair in state `Reset` cannot send

use ibverbs::{QueuePair, Rc};

fn case(mut qp: QueuePair<Rc, ibverbs::Reset>) {
    let mut batch = qp.start_send();
    batch.op().send(1, b"hello");
}

fn main() {}
