//! Whoever gives memory away to peers promises when they touch it.

use ibverbs::{MemoryRegion, RemoteMemorySlice};

fn case(region: &MemoryRegion) -> ibverbs::Result<RemoteMemorySlice> {
    unsafe { region.remote() }
}

fn main() {}
