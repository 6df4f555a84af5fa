//! A region is not split while there are slices of it.

use ibverbs::SharedRegion;

fn case(mut region: SharedRegion) -> u32 {
    let _rest = region.split_off(4);
    let slice = region.slice(..4);
    slice.len()
}

fn main() {}
