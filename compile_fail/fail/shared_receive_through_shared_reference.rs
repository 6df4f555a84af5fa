//! Receives are posted by whoever has the queue pair for himself.
//~ error[E0596]: cannot borrow `*qp` as mutable, as it is behind a `&` reference

use ibverbs::{QueuePair, Rc, RecvRequest};

fn case(qp: &QueuePair<Rc>) -> ibverbs::Result<()> {
    qp.post_recv_shared([RecvRequest::shared(1, &[])])
}

fn main() {}
