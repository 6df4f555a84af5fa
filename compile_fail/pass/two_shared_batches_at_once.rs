//! A shared batch borrows its queue pair.

use ibverbs::{QueuePair, Rc, Result};

fn case(mut qp: QueuePair<Rc>) -> Result<()> {
    let one = qp.start_shared();
    one.submit()?;
    let two = qp.start_shared();
    two.submit()
}

fn main() {}
