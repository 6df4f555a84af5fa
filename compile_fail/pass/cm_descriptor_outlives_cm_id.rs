//! The descriptor is open as long as the identifier.

use std::os::fd::{AsFd, AsRawFd};

use ibverbs::rdmacm::CmId;

fn case(id: CmId) {
    let descriptor = id.as_fd();
    println!("{}", descriptor.as_raw_fd());
    drop(id);
}

fn main() {}
