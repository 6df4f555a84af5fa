//! Whoever splits a region has it for himself: each piece has bytes of its own.
//~ error[E0596]: cannot borrow `*region` as mutable, as it is behind a `&` reference

use ibverbs::SharedRegion;

fn case(region: &SharedRegion) -> SharedRegion {
    region.split_off(8)
}

fn main() {}
