//! Who writes to memory has its region for himself.

use ibverbs::MemoryRegion;

fn case(region: &mut MemoryRegion) -> () {
    region.bytes_mut().fill(1)
}

fn main() {}
