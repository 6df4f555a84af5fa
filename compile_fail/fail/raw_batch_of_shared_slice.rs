//! A raw batch takes slices of a memory region.
//~ error[E0277]: the trait bound `Payload<'_>: From<&[SharedSlice<'_>; 1]>` is not satisfied

use ibverbs::{QueuePair, Rc, Result, SharedRegion};

fn case(mut qp: QueuePair<Rc>, region: SharedRegion) -> Result<()> {
    let mut batch = qp.start_send();
    batch.op().send(1, &[region.slice(..8)]);
    // SAFETY: it does not compile.
    unsafe { batch.submit() }
}

fn main() {}
