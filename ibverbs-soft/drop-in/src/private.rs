//! The functions that rdma-core has for its own libraries and programs.
//!
//! They are versioned as a whole, by the release in which one of them last changed. Libraries of every release bind them when
//! they are loaded. They call them when there is a device of theirs, which there is not; but for their constructors, which
//! register a driver.

use std::ffi::{c_int, c_uint};

use ibverbs_sys as ffi;

use crate::{refuse, result};

/// Passes on each version of the private interface since 2021, in front of what else there is.
macro_rules! for_each_version {
    ($macro:ident $($rest:tt)*) => {
        $macro! { "34" $($rest)* }
        $macro! { "57" $($rest)* }
        $macro! { "59" $($rest)* }
        $macro! { "64" $($rest)* }
        $macro! { "65" $($rest)* }
    };
}

/// Exports a function with one version.
macro_rules! export {
    ($version:literal $name:expr, $function:item) => {
        const _: () = {
            #[export_name = concat!($name, "@IBVERBS_PRIVATE_", $version)]
            $function
        };
    };
}

macro_rules! refused {
    ($version:literal $name:ident $failure:ident) => {
        export! { $version stringify!($name), extern "C" fn refused() -> result!($failure) {
            refuse!($failure)
        } }
    };
}

macro_rules! private {
    ($($name:ident => $failure:ident;)*) => { $( for_each_version! { refused $name $failure } )* };
}

/// The public ones are in `public.rs`.
macro_rules! public {
    ($($list:tt)*) => {};
}

include!("refused.rs");

macro_rules! register_driver {
    ($version:literal) => {
        // What libraries call as they are loaded, to have their devices found. Nothing is looked for.
        export! { $version concat!("verbs_register_driver_", $version), extern "C" fn register() {} }
    };
}
for_each_version! { register_driver }

macro_rules! disassociate {
    ($version:literal) => {
        // Libraries ask whether to take it for a success when an object's device went away before it. Read, never written.
        export! { $version "verbs_allow_disassociate_destroy", static ALLOW: bool = false; }
    };
}
for_each_version! { disassociate }

/// What the kernel calls the type of a GID of RoCE version 2, and what the other one, which goes for InfiniBand as well.
const ROCE_V2: c_int = 1;
const IB_OR_ROCE_V1: c_int = 0;

/// Tells a GID's type, which `ibv_devinfo` shows.
///
/// # Safety
///
/// The device is open, and the pointer is to a number.
unsafe extern "C" fn query_gid_type(
    context: *mut ffi::ibv_context,
    port: u8,
    index: c_uint,
    to: *mut c_int,
) -> c_int {
    let mut entry = ffi::ibv_gid_entry::default();
    // SAFETY: the device is open, by the caller's promise, and there is room for an entry.
    let result = unsafe { ffi::ibv_query_gid_ex(context, port.into(), index, &mut entry, 0) };
    if result != 0 {
        // Unlike the public function.
        return -1;
    }
    let is_roce_v2 = entry.gid_type == ffi::IBV_GID_TYPE_ROCE_V2;
    // SAFETY: by the caller's promise.
    unsafe { to.write(if is_roce_v2 { ROCE_V2 } else { IB_OR_ROCE_V1 }) };
    0
}

macro_rules! gid_type {
    ($version:literal) => {
        export! { $version "ibv_query_gid_type",
            unsafe extern "C" fn query(
                context: *mut ffi::ibv_context, port: u8, index: c_uint, to: *mut c_int,
            ) -> c_int {
                // SAFETY: the caller keeps to the contract, which is the same.
                unsafe { query_gid_type(context, port, index, to) }
            }
        }
    };
}
for_each_version! { gid_type }
