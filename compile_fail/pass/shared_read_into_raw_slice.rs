//! A read of a shared batch does not go into memory that may be seen as a Rust slice.

use ibverbs::{MemoryRegion, QueuePair, Rc, RemoteMemorySlice, Result, SharedRegion};

fn case(
    mut qp: QueuePair<Rc>,
    (_, region): (MemoryRegion, SharedRegion),
    remote: RemoteMemorySlice,
) -> Result<()> {
    let mut batch = qp.start_shared();
    batch.op().read(1, &[region.slice(..8)], remote);
    batch.submit()
}

fn main() {}
