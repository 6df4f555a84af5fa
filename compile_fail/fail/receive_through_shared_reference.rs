//! Posting receives needs the queue pair exclusively.
//~ error[E0596]: cannot borrow `*qp` as mutable, as it is behind a `&` reference

use ibverbs::{QueuePair, Rc, RecvRequest};

fn case(qp: &QueuePair<Rc>) -> ibverbs::Result<()> {
    unsafe { qp.post_recv([RecvRequest::new(1, &[])]) }
}

fn main() {}
