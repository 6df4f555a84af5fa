//! Only a region makes slices of it.
//~ error[E0451]: fields `entry`, `domain` and `_region` of struct `SharedSlice` are private

use ibverbs::{SharedRegion, SharedSlice};

fn case(region: &SharedRegion) -> SharedSlice<'_> {
    SharedSlice { ..region.slice(..) }
}

fn main() {}
