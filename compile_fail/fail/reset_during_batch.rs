//! A batch has its queue pair for itself: it is not reset meanwhile.
//~ error[E0505]: cannot move out of `qp` because it is borrowed

use ibverbs::{QueuePair, Rc};

fn case(mut qp: QueuePair<Rc>) -> ibverbs::Result<()> {
    let batch = qp.start_send();
    let _reset = qp.reset()?;
    unsafe { batch.submit() }?;
    Ok(())
}

fn main() {}
