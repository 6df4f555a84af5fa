//! Memory is not read after its region is gone.

use ibverbs::MemoryRegion;

fn case<'r>(region: &'r MemoryRegion) -> &'r [u8] {
    region.bytes()
}

fn main() {}
