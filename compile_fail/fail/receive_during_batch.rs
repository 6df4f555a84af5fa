//! A batch has its queue pair for itself: no receive is posted meanwhile.
//~ error[E0499]: cannot borrow `*qp` as mutable more than once at a time

use ibverbs::{QueuePair, Rc, RecvRequest};

fn case(qp: &mut QueuePair<Rc>) -> ibverbs::Result<()> {
    let batch = qp.start_send();
    unsafe { qp.post_recv([RecvRequest::new(1, &[])]) }?;
    unsafe { batch.submit() }
}

fn main() {}
