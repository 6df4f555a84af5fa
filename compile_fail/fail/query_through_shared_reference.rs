//! A query writes into the queue pair, and needs it exclusively.
//~ error[E0596]: cannot borrow `*qp` as mutable, as it is behind a `&` reference

use ibverbs::{QueuePair, QueuePairAttr, QueuePairAttrMask, Rc};

fn case(qp: &QueuePair<Rc>) -> ibverbs::Result<QueuePairAttr> {
    qp.query(QueuePairAttrMask::STATE)
}

fn main() {}
