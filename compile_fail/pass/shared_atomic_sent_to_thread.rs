//! A view of a number stays on the thread that has its region.

use ibverbs::SharedRegion;

fn send<T: Send>(_: T) {}

fn case(region: SharedRegion) {
    let _number = region.atomic_u64(0);
    send(region);
}

fn main() {}
