//! A batch has its queue pair for itself: it joins no group meanwhile.
//~ error[E0499]: cannot borrow `*qp` as mutable more than once at a time

use ibverbs::{Gid, QueuePair, Ud};

fn case(qp: &mut QueuePair<Ud>, group: Gid) -> ibverbs::Result<()> {
    let batch = qp.start_send();
    qp.attach_mcast(group, 0)?;
    unsafe { batch.submit() }?;
    Ok(())
}

fn main() {}
