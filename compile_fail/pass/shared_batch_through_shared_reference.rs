//! A shared batch is filled by whoever has the queue pair for himself.

use ibverbs::{QueuePair, Rc};

fn case(qp: &mut QueuePair<Rc>) -> ibverbs::Result<()> {
    qp.start_shared().submit()
}

fn main() {}
