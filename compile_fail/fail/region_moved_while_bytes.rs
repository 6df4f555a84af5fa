//! A region is not moved while its memory is read.
//~ error[E0505]: cannot move out of `region` because it is borrowed

use ibverbs::MemoryRegion;

fn case(region: MemoryRegion) -> (u8, Box<MemoryRegion>) {
    let bytes = region.bytes();
    let moved = Box::new(region);
    let first = bytes[0];
    (first, moved)
}

fn main() {}
