//! Whoever makes a device of a raw pointer promises that it is one.

use ibverbs::{ffi, Device};
use std::ptr::NonNull;

fn case(raw: NonNull<ffi::ibv_device>) -> Device<'static> {
    unsafe { Device::from_raw(raw) }
}

fn main() {}
