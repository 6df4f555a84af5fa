//! Memory that a region does not own is not seen as a slice.

use ibverbs::MemoryRegion;

fn case(region: &MemoryRegion) -> &[u8] {
    region.bytes()
}

fn main() {}
