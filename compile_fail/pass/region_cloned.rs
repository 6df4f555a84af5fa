//! A region has one owner: its memory is deregistered once.

use ibverbs::MemoryRegion;

fn case(region: MemoryRegion) -> [MemoryRegion; 1] {
    [region]
}

fn main() {}
