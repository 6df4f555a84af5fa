//! A queue pair that was only created is not modified by hand, but initialised.
//~ error[E0277]: a queue pair in state `Reset` is not modified by hand

use ibverbs::{QueuePair, QueuePairAttr, Rc};

fn case(mut qp: QueuePair<Rc, ibverbs::Reset>, attr: &QueuePairAttr) -> ibverbs::Result<()> {
    qp.modify(attr)
}

fn main() {}
