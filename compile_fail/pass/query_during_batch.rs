//! A batch has its queue pair for itself: it is not queried meanwhile.

use ibverbs::{QueuePair, QueuePairAttrMask, Rc};

fn case(qp: &mut QueuePair<Rc>) -> ibverbs::Result<()> {
    qp.query(QueuePairAttrMask::STATE)?;
    let batch = qp.start_send();
    unsafe { batch.submit() }
}

fn main() {}
