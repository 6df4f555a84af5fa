//! A region reaches bytes that no other region does.

use ibverbs::SharedRegion;

fn case(region: SharedRegion) -> [SharedRegion; 1] {
    [region]
}

fn main() {}
