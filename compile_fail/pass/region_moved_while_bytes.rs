//! A region is not moved while its memory is read.

use ibverbs::MemoryRegion;

fn case(region: MemoryRegion) -> (u8, Box<MemoryRegion>) {
    let bytes = region.bytes();
    let first = bytes[0];
    let moved = Box::new(region);
    (first, moved)
}

fn main() {}
