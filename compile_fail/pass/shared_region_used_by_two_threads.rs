//! A region is used by one thread: others have pieces of it.

use std::thread;

use ibverbs::SharedRegion;

fn case(mut region: SharedRegion) {
    let own = region.split_off(8);
    thread::scope(|scope| {
        scope.spawn(move || own.write_at(0, b"there"));
        region.write_at(0, b"here");
    });
}

fn main() {}
