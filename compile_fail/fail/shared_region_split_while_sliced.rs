//! A region is not split while there are slices of it.
//~ error[E0502]: cannot borrow `region` as mutable because it is also borrowed as immutable

use ibverbs::SharedRegion;

fn case(mut region: SharedRegion) -> u32 {
    let slice = region.slice(..8);
    let _rest = region.split_off(4);
    slice.len()
}

fn main() {}
