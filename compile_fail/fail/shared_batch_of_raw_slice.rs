//! A shared batch does not take memory that may be seen as a Rust slice.
//~ error[E0277]: the trait bound `Payload<'_, Shared>: From<&[LocalMemorySlice; 1]>` is not satisfied

use ibverbs::{MemoryRegion, QueuePair, Rc, Result, SharedRegion};

fn case(mut qp: QueuePair<Rc>, region: MemoryRegion, _: SharedRegion) -> Result<()> {
    let mut batch = qp.start_shared();
    batch.op().send(1, &[region.slice(..8)]);
    batch.submit()
}

fn main() {}
