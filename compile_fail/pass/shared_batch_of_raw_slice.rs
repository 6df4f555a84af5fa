//! A shared batch does not take memory that may be seen as a Rust slice.

use ibverbs::{MemoryRegion, QueuePair, Rc, Result, SharedRegion};

fn case(mut qp: QueuePair<Rc>, _: MemoryRegion, region: SharedRegion) -> Result<()> {
    let mut batch = qp.start_shared();
    batch.op().send(1, &[region.slice(..8)]);
    batch.submit()
}

fn main() {}
