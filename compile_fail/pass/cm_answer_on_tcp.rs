//! A request for a connection is accepted, not answered.

use ibverbs::rdmacm::Incoming;
use ibverbs::{QueuePair, Ud};

type Request = Incoming<ibverbs::rdmacm::Udp>;

fn case(request: Request, qp: &QueuePair<Ud>) -> ibverbs::Result<()> {
    request.answer(qp, b"")
}

fn main() {}
