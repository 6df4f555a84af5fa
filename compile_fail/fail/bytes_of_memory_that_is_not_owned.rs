//! Memory that a region does not own is not seen as a slice.
//~ error[E0599]: no method named `bytes` found for reference `&MemoryRegion<()>` in the current scope

use ibverbs::MemoryRegion;

fn case(region: &MemoryRegion<()>) -> &[u8] {
    region.bytes()
}

fn main() {}
