//! A shared batch has its queue pair for itself: receives come before or after it.
//~ error[E0499]: cannot borrow `*qp` as mutable more than once at a time

use ibverbs::{QueuePair, Rc, RecvRequest};

fn case(qp: &mut QueuePair<Rc>) -> ibverbs::Result<()> {
    let batch = qp.start_shared();
    qp.post_recv_shared([RecvRequest::shared(1, &[])])?;
    batch.submit()?;
    Ok(())
}

fn main() {}
