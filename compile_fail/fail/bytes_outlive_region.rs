//! Memory is not read after its region is gone.
//~ error[E0515]: cannot return value referencing function parameter `region`

use ibverbs::MemoryRegion;

fn case<'r>(region: MemoryRegion) -> &'r [u8] {
    region.bytes()
}

fn main() {}
