//! The functions that programs call.

use std::ffi::{c_char, c_int, c_uint, c_void};

use ibverbs_sys::*;
use libc::{
    epoll_event, fd_set, iovec, msghdr, nfds_t, off_t, pollfd, sockaddr, socklen_t, timeval,
};

use crate::{install, refuse, result};

/// Exports each function; it calls the one of the same name that goes through the table, after the table was filled.
macro_rules! functions {
    ($($library:ident {
        $(fn $name:ident($($argument:ident: $ty:ty),*) -> $result:ty => $failure:ident;)*
    })*) => {
        $($(
            const _: () = {
                #[export_name = stringify!($name)]
                unsafe extern "C" fn exported($($argument: $ty),*) -> $result {
                    install();
                    // SAFETY: the caller keeps to the contract of the C function of this name, which is this one's.
                    unsafe { ibverbs_sys::symbols::$name($($argument),*) }
                }
            };
        )*)*
    };
}

include!("../../../ibverbs-sys/src/functions.rs");

/// Exports functions that are public, but that no bindings are for.
macro_rules! public {
    ($($name:ident => $failure:ident;)*) => { $(
        const _: () = {
            #[export_name = stringify!($name)]
            extern "C" fn refused() -> result!($failure) {
                refuse!($failure)
            }
        };
    )* };
}

/// Those of the private interface are in `private.rs`.
macro_rules! private {
    ($($list:tt)*) => {};
}

include!("refused.rs");

/// Where Linux has what the kernel says about devices. Nothing is read there for a device of this library.
#[no_mangle]
extern "C" fn ibv_get_sysfs_path() -> *const c_char {
    c"/sys".as_ptr()
}
