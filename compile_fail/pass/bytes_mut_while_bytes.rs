//! Memory is not written while it is read.

use ibverbs::MemoryRegion;

fn case(region: &mut MemoryRegion) -> u8 {
    let bytes = region.bytes();
    let first = bytes[0];
    region.bytes_mut().fill(0);
    first
}

fn main() {}
