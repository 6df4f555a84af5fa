//! A batch has its queue pair for itself: it is not reset meanwhile.

use ibverbs::{QueuePair, Rc};

fn case(mut qp: QueuePair<Rc>) -> ibverbs::Result<()> {
    let batch = qp.start_send();
    unsafe { batch.submit() }?;
    let _reset = qp.reset()?;
    Ok(())
}

fn main() {}
