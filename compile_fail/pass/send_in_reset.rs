//! A queue pair that was only created cannot send.

use ibverbs::{QueuePair, Rc};

fn case(mut qp: QueuePair<Rc, ibverbs::Rts>) {
    let mut batch = qp.start_send();
    batch.op().send(1, b"hello");
}

fn main() {}
