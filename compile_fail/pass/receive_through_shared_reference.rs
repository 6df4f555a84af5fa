//! Posting receives needs the queue pair exclusively.

use ibverbs::{QueuePair, Rc, RecvRequest};

fn case(qp: &mut QueuePair<Rc>) -> ibverbs::Result<()> {
    unsafe { qp.post_recv([RecvRequest::new(1, &[])]) }
}

fn main() {}
