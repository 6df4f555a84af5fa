//! A batch has its queue pair for itself: it joins no group meanwhile.

use ibverbs::{Gid, QueuePair, Ud};

fn case(qp: &mut QueuePair<Ud>, group: Gid) -> ibverbs::Result<()> {
    let batch = qp.start_send();
    unsafe { batch.submit() }?;
    qp.attach_mcast(group, 0)?;
    Ok(())
}

fn main() {}
