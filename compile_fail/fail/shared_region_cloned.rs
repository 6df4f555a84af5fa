//! A region reaches bytes that no other region does.
//~ error[E0599]: no method named `clone` found for struct `SharedRegion`

use ibverbs::SharedRegion;

fn case(region: SharedRegion) -> [SharedRegion; 1] {
    [region.clone()]
}

fn main() {}
