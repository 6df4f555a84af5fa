//! A read needs registered memory, not a copy of bytes.

use ibverbs::{MemoryRegion, Rc, RemoteMemorySlice, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>, region: &MemoryRegion, remote: RemoteMemorySlice) {
    batch.op().read(1, &[region.slice(..8)], remote);
}

fn main() {}
