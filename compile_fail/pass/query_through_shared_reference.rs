//! A query writes into the queue pair, and needs it exclusively.

use ibverbs::{QueuePair, QueuePairAttr, QueuePairAttrMask, Rc};

fn case(qp: &mut QueuePair<Rc>) -> ibverbs::Result<QueuePairAttr> {
    qp.query(QueuePairAttrMask::STATE)
}

fn main() {}
