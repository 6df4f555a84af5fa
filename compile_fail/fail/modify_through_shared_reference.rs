//! Moving a queue pair to another state writes into it.
//~ error[E0596]: cannot borrow `*qp` as mutable, as it is behind a `&` reference

use ibverbs::{QueuePair, QueuePairAttr, Rc};

fn case(qp: &QueuePair<Rc>, attr: &QueuePairAttr) -> ibverbs::Result<()> {
    qp.modify(attr)
}

fn main() {}
