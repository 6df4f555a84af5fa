//! Whoever gives memory away to peers promises when they touch it.
//~ error[E0133]: call to unsafe function `MemoryRegion::<B>::remote` is unsafe

use ibverbs::{MemoryRegion, RemoteMemorySlice};

fn case(region: &MemoryRegion) -> ibverbs::Result<RemoteMemorySlice> {
    region.remote()
}

fn main() {}
