//! Who writes to memory has its region for himself.
//~ error[E0596]: cannot borrow `*region` as mutable, as it is behind a `&` reference

use ibverbs::MemoryRegion;

fn case(region: &MemoryRegion) -> () {
    region.bytes_mut().fill(1)
}

fn main() {}
