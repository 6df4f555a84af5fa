//! A peer is told a queue pair that can receive.

use ibverbs::rdmacm::{Incoming, Udp};
use ibverbs::{QueuePair, Ud};

type Told = QueuePair<Ud, ibverbs::Rts>;

fn case(incoming: Incoming<Udp>, qp: &Told) -> ibverbs::Result<()> {
    incoming.answer(qp, b"")
}

fn main() {}
