//! A shared batch is filled by whoever has the queue pair for himself.
//~ error[E0596]: cannot borrow `*qp` as mutable, as it is behind a `&` reference

use ibverbs::{QueuePair, Rc};

fn case(qp: &QueuePair<Rc>) -> ibverbs::Result<()> {
    qp.start_shared().submit()
}

fn main() {}
