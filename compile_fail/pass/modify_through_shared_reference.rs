//! Moving a queue pair to another state writes into it.

use ibverbs::{QueuePair, QueuePairAttr, Rc};

fn case(qp: &mut QueuePair<Rc>, attr: &QueuePairAttr) -> ibverbs::Result<()> {
    qp.modify(attr)
}

fn main() {}
