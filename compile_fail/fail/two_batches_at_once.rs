//! A queue pair has one batch at a time.
//~ error[E0499]: cannot borrow `*qp` as mutable more than once at a time

use ibverbs::{QueuePair, Rc};

fn case(qp: &mut QueuePair<Rc>) -> ibverbs::Result<()> {
    let first = qp.start_send();
    let second = qp.start_send();
    unsafe { first.submit() }?;
    unsafe { second.submit() }
}

fn main() {}
