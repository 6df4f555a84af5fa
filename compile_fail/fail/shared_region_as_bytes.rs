//! There are no references to shared memory: it is copied.
//~ error[E0599]: no method named `bytes` found for struct `SharedRegion`

use ibverbs::SharedRegion;

fn case(region: SharedRegion) -> u8 {
    let mut byte = [0];
    byte[0] = region.bytes()[0];
    byte[0]
}

fn main() {}
