//! Receives are posted by whoever has the queue pair for himself.

use ibverbs::{QueuePair, Rc, RecvRequest};

fn case(qp: &mut QueuePair<Rc>) -> ibverbs::Result<()> {
    qp.post_recv_shared([RecvRequest::shared(1, &[])])
}

fn main() {}
