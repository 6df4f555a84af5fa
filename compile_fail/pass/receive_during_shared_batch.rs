//! A shared batch has its queue pair for itself: receives come before or after it.

use ibverbs::{QueuePair, Rc, RecvRequest};

fn case(qp: &mut QueuePair<Rc>) -> ibverbs::Result<()> {
    let batch = qp.start_shared();
    batch.submit()?;
    qp.post_recv_shared([RecvRequest::shared(1, &[])])?;
    Ok(())
}

fn main() {}
