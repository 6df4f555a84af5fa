//! A request for a connection is accepted, not answered.
//~ error[E0277]: port space `Tcp` is one of connections, not of datagrams

use ibverbs::rdmacm::Incoming;
use ibverbs::{QueuePair, Ud};

type Request = Incoming<ibverbs::rdmacm::Tcp>;

fn case(request: Request, qp: &QueuePair<Ud>) -> ibverbs::Result<()> {
    request.answer(qp, b"")
}

fn main() {}
