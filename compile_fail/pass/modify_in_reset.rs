//! A queue pair that was only created is not modified by hand, but initialised.

use ibverbs::{QueuePair, QueuePairAttr, Rc};

fn case(mut qp: QueuePair<Rc, ibverbs::Rts>, attr: &QueuePairAttr) -> ibverbs::Result<()> {
    qp.modify(attr)
}

fn main() {}
