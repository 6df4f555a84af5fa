//! A request for a datagram queue pair is answered once.
//~ error[E0382]: use of moved value: `incoming`

use ibverbs::rdmacm::{Incoming, Udp};
use ibverbs::{QueuePair, Ud};

fn case(incoming: Incoming<Udp>, other: Incoming<Udp>, qp: &QueuePair<Ud>) -> ibverbs::Result<()> {
    incoming.answer(qp, b"")?;
    incoming.answer(qp, b"again")
}

fn main() {}
