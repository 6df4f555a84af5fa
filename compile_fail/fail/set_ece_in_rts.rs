//! A vendor's options are set before the queue pair is brought up.
//~ error[E0277]: a queue pair in state `Rts` is past its bring-up

use ibverbs::rdmacm::Ece;
use ibverbs::{QueuePair, Rc};

type Prepared = QueuePair<Rc, ibverbs::Rts>;

fn case(qp: &mut Prepared, ece: Ece) -> ibverbs::Result<()> {
    qp.set_ece(ece)
}

fn main() {}
