//! A batch does not outlive its queue pair.
//~ error[E0515]: cannot return value referencing function parameter `qp`

use ibverbs::{QueuePair, Rc, SendBatch};

fn case<'qp>(mut qp: QueuePair<Rc>) -> SendBatch<'qp, Rc> {
    qp.start_send()
}

fn main() {}
