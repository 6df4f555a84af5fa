//! The states of the bring-up are not modified by hand.
//~ error[E0277]: a queue pair in state `Rtr` is not modified by hand

use ibverbs::{QueuePair, QueuePairAttr, Rc};

fn case(mut qp: QueuePair<Rc, ibverbs::Rtr>, attr: &QueuePairAttr) -> ibverbs::Result<()> {
    qp.modify(attr)
}

fn main() {}
