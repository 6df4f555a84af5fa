//! A shared batch borrows its queue pair.
//~ error[E0499]: cannot borrow `qp` as mutable more than once at a time

use ibverbs::{QueuePair, Rc, Result};

fn case(mut qp: QueuePair<Rc>) -> Result<()> {
    let one = qp.start_shared();
    let two = qp.start_shared();
    one.submit()?;
    two.submit()
}

fn main() {}
