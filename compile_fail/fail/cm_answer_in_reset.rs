//! A peer is told a queue pair that can receive.
//~ error[E0277]: a queue pair in state `Reset` cannot take receives

use ibverbs::rdmacm::{Incoming, Udp};
use ibverbs::{QueuePair, Ud};

type Told = QueuePair<Ud, ibverbs::Reset>;

fn case(incoming: Incoming<Udp>, qp: &Told) -> ibverbs::Result<()> {
    incoming.answer(qp, b"")
}

fn main() {}
