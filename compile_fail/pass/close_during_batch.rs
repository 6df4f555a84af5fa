//! A batch has its queue pair for itself: it is not destroyed meanwhile.

use ibverbs::{QueuePair, Rc};

fn case(mut qp: QueuePair<Rc>) -> ibverbs::Result<()> {
    let batch = qp.start_send();
    unsafe { batch.submit() }?;
    let closed = qp.close();
    Ok(closed?)
}

fn main() {}
