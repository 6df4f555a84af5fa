//! A region has one owner: its memory is deregistered once.
//~ error[E0599]: no method named `clone` found for struct `MemoryRegion

use ibverbs::MemoryRegion;

fn case(region: MemoryRegion) -> [MemoryRegion; 1] {
    [region.clone()]
}

fn main() {}
