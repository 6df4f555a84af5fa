//! A batch has its queue pair for itself: no receive is posted meanwhile.

use ibverbs::{QueuePair, Rc, RecvRequest};

fn case(qp: &mut QueuePair<Rc>) -> ibverbs::Result<()> {
    unsafe { qp.post_recv([RecvRequest::new(1, &[])]) }?;
    let batch = qp.start_send();
    unsafe { batch.submit() }
}

fn main() {}
