//! A batch has its queue pair for itself: it is not moved to another state meanwhile.
//~ error[E0499]: cannot borrow `*qp` as mutable more than once at a time

use ibverbs::{QueuePair, QueuePairAttr, Rc};

fn case(qp: &mut QueuePair<Rc>, attr: &QueuePairAttr) -> ibverbs::Result<()> {
    let batch = qp.start_send();
    qp.modify(attr)?;
    unsafe { batch.submit() }?;
    Ok(())
}

fn main() {}
