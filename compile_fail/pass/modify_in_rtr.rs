//! The states of the bring-up are not modified by hand.

use ibverbs::{QueuePair, QueuePairAttr, Rc};

fn case(mut qp: QueuePair<Rc, ibverbs::Rts>, attr: &QueuePairAttr) -> ibverbs::Result<()> {
    qp.modify(attr)
}

fn main() {}
