//! A slice of shared memory stays on the thread that has its region.
//~ error[E0277]: `NonNull<u8>` cannot be shared between threads safely
//~ error[E0277]: `Cell<()>` cannot be shared between threads safely

use ibverbs::SharedRegion;

fn send<T: Send>(_: T) {}

fn case(region: SharedRegion) {
    let slice = region.slice(..);
    send(slice);
}

fn main() {}
