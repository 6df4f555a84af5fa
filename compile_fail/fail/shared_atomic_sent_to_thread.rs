//! A view of a number stays on the thread that has its region.
//~ error[E0277]: `*mut u64` cannot be sent between threads safely
//~ error[E0277]: `NonNull<u8>` cannot be shared between threads safely
//~ error[E0277]: `Cell<()>` cannot be shared between threads safely

use ibverbs::SharedRegion;

fn send<T: Send>(_: T) {}

fn case(region: SharedRegion) {
    let number = region.atomic_u64(0);
    send(number);
}

fn main() {}
