//! A slice of shared memory stays on the thread that has its region.

use ibverbs::SharedRegion;

fn send<T: Send>(_: T) {}

fn case(region: SharedRegion) {
    let _slice = region.slice(..);
    send(region);
}

fn main() {}
