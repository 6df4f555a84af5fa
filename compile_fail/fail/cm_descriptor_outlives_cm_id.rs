//! The descriptor is open as long as the identifier.
//~ error[E0505]: cannot move out of `id` because it is borrowed

use std::os::fd::{AsFd, AsRawFd};

use ibverbs::rdmacm::CmId;

fn case(id: CmId) {
    let descriptor = id.as_fd();
    drop(id);
    println!("{}", descriptor.as_raw_fd());
}

fn main() {}
