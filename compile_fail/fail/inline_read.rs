//! A read needs registered memory, not a copy of bytes.
//~ error[E0308]: mismatched types

use ibverbs::{MemoryRegion, Rc, RemoteMemorySlice, SendBatch};

fn case(batch: &mut SendBatch<'_, Rc>, region: &MemoryRegion, remote: RemoteMemorySlice) {
    batch.op().read(1, &region.bytes()[..8], remote);
}

fn main() {}
