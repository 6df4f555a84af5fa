//! A queue pair has one batch at a time.

use ibverbs::{QueuePair, Rc};

fn case(qp: &mut QueuePair<Rc>) -> ibverbs::Result<()> {
    let first = qp.start_send();
    unsafe { first.submit() }?;
    let second = qp.start_send();
    unsafe { second.submit() }
}

fn main() {}
