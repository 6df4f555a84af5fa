//! A batch does not outlive its queue pair.

use ibverbs::{QueuePair, Rc, SendBatch};

fn case<'qp>(qp: &'qp mut QueuePair<Rc>) -> SendBatch<'qp, Rc> {
    qp.start_send()
}

fn main() {}
