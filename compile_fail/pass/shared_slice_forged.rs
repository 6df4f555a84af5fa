//! Only a region makes slices of it.

use ibverbs::{SharedRegion, SharedSlice};

fn case(region: &SharedRegion) -> SharedSlice<'_> {
    region.slice(..)
}

fn main() {}
