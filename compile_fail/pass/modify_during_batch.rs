//! A batch has its queue pair for itself: it is not moved to another state meanwhile.

use ibverbs::{QueuePair, QueuePairAttr, Rc};

fn case(qp: &mut QueuePair<Rc>, attr: &QueuePairAttr) -> ibverbs::Result<()> {
    let batch = qp.start_send();
    unsafe { batch.submit() }?;
    qp.modify(attr)?;
    Ok(())
}

fn main() {}
