//! Whoever makes a device of a raw pointer promises that it is one.
//~ error[E0133]: call to unsafe function `ibverbs::Device::<'l>::from_raw` is unsafe

use ibverbs::{ffi, Device};
use std::ptr::NonNull;

fn case(raw: NonNull<ffi::ibv_device>) -> Device<'static> {
    Device::from_raw(raw)
}

fn main() {}
