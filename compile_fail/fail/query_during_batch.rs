//! A batch has its queue pair for itself: it is not queried meanwhile.
//~ error[E0499]: cannot borrow `*qp` as mutable more than once at a time

use ibverbs::{QueuePair, QueuePairAttrMask, Rc};

fn case(qp: &mut QueuePair<Rc>) -> ibverbs::Result<()> {
    let batch = qp.start_send();
    qp.query(QueuePairAttrMask::STATE)?;
    unsafe { batch.submit() }
}

fn main() {}
