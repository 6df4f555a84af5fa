//! There are no references to shared memory: it is copied.

use ibverbs::SharedRegion;

fn case(region: SharedRegion) -> u8 {
    let mut byte = [0];
    region.read_at(0, &mut byte);
    byte[0]
}

fn main() {}
