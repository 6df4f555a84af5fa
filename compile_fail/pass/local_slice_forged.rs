//! Only a region makes slices of it.

use ibverbs::{LocalMemorySlice, MemoryRegion};

fn case(region: &MemoryRegion) -> LocalMemorySlice {
    region.slice(..)
}

fn main() {}
