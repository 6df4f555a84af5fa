//! Only a region makes slices of it.
//~ error[E0451]: field `sge` of struct `LocalMemorySlice` is private

use ibverbs::{LocalMemorySlice, MemoryRegion};

fn case(region: &MemoryRegion) -> LocalMemorySlice {
    LocalMemorySlice { ..region.slice(..) }
}

fn main() {}
