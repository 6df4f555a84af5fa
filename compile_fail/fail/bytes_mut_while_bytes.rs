//! Memory is not written while it is read.
//~ error[E0502]: cannot borrow `*region` as mutable because it is also borrowed as immutable

use ibverbs::MemoryRegion;

fn case(region: &mut MemoryRegion) -> u8 {
    let bytes = region.bytes();
    region.bytes_mut().fill(0);
    let first = bytes[0];
    first
}

fn main() {}
