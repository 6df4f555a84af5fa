//! A vendor's options are set before the queue pair is brought up.

use ibverbs::rdmacm::Ece;
use ibverbs::{QueuePair, Rc};

type Prepared = QueuePair<Rc, ibverbs::Init>;

fn case(qp: &mut Prepared, ece: Ece) -> ibverbs::Result<()> {
    qp.set_ece(ece)
}

fn main() {}
