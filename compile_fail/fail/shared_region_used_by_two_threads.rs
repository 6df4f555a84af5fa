//! A region is used by one thread: others have pieces of it.
//~ error[E0277]: `NonNull<u8>` cannot be shared between threads safely
//~ error[E0277]: `Cell<()>` cannot be shared between threads safely

use std::thread;

use ibverbs::SharedRegion;

fn case(region: SharedRegion) {
    let own = &region;
    thread::scope(|scope| {
        scope.spawn(|| own.write_at(0, b"there"));
        region.write_at(0, b"here");
    });
}

fn main() {}
