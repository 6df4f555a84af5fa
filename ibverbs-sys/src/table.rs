//! The function table: one structure per library, and a function per symbol that calls through the process's table.
//!
//! The functions stand in `functions.rs`, which is generated: `fn NAME(ARGUMENTS) -> RESULT => FAILURE;`, where `FAILURE` is
//! the convention by which this function reports one, and therefore what its absence looks like: see `failed`.

use core::ffi::{c_char, c_int, c_uint, c_void, CStr};

use libc::{
    epoll_event, fd_set, iovec, msghdr, nfds_t, off_t, pollfd, sockaddr, socklen_t, timeval,
};

use crate::bindings::*;
use crate::provider;

/// The value that reports a failure, by the convention that `functions.rs` names for each function.
macro_rules! failed {
    (nothing, $error:expr) => {
        set_errno($error)
    };
    (null, $error:expr) => {{
        set_errno($error);
        core::ptr::null_mut()
    }};
    (zero, $error:expr) => {{
        set_errno($error);
        0
    }};
    (minus_one, $error:expr) => {{
        set_errno($error);
        // All bits set: -1, also where C casts it to an unsigned type.
        !0
    }};
    (errno, $error:expr) => {{
        let error = $error;
        set_errno(error);
        error
    }};
    (negative_errno, $error:expr) => {{
        let error = $error;
        set_errno(error);
        -error as _
    }};
}

/// One library: its table, and the functions that call through it.
macro_rules! library {
    (
        $(#[$doc:meta])*
        $table:ident, $library:ident, $soname:literal,
        $(fn $name:ident($($argument:ident: $ty:ty),*) -> $result:ty => $failure:ident;)*
    ) => {
        $(#[$doc])*
        ///
        /// A field is `None` where the provider does not have the function: its library is older than the function is.
        #[derive(Clone, Copy, Debug)]
        pub struct $table {
            $(
                #[doc = concat!("`", stringify!($name), "`")]
                pub $name: Option<unsafe extern "C" fn($($ty),*) -> $result>,
            )*
        }

        impl $table {
            /// A table without any function: the start for a provider that has some of them,
            #[doc = concat!("`", stringify!($table), " { /* those */ .., ..", stringify!($table), "::EMPTY }`.")]
            pub const EMPTY: Self = Self { $($name: None),* };

            /// Fills the table with what `find` returns for each symbol's name; null is for a symbol that is not there.
            ///
            /// # Safety
            ///
            /// What `find` returns for a name is null, or the address of a function with the signature that the pinned
            /// rdma-core declares for this name, which stays callable for the rest of the process.
            pub unsafe fn from_symbols(mut find: impl FnMut(&CStr) -> *mut c_void) -> Self {
                Self {
                    $($name: {
                        let symbol = find(c_name(concat!(stringify!($name), "\0")));
                        // SAFETY: null becomes `None`, since the null pointer optimization holds for `Option` of a
                        // function pointer; and otherwise the caller promises that this is the address of a function
                        // with the signature of the field, which was generated from the declaration.
                        unsafe {
                            core::mem::transmute::<*mut c_void, Option<unsafe extern "C" fn($($ty),*) -> $result>>(
                                symbol,
                            )
                        }
                    },)*
                }
            }
        }

        $(
            #[doc = concat!("`", stringify!($name), "` of ", $soname, ", called through the process's [`provider`].")]
            ///
            #[doc = failure_doc!($failure)]
            ///
            /// # Safety
            ///
            #[doc = concat!(
                "The contract is that of the C function: see the manual page ", stringify!($name), "(3). Pointers are ",
                "valid for what it does with them, and objects come from the same provider and are alive.",
            )]
            // A few have a port of a macro of the same name, which is what the crate root exports instead.
            #[allow(unreachable_pub)]
            pub unsafe fn $name($($argument: $ty),*) -> $result {
                match provider::$library() {
                    Ok(table) => match table.$name {
                        // SAFETY: the table's pointers are those of the C functions of this name (`from_symbols`, or
                        // the contract of `provider::install`), and the caller keeps to its contract.
                        Some(function) => unsafe { function($($argument),*) },
                        None => failed!($failure, libc::EOPNOTSUPP),
                    },
                    Err(_) => failed!($failure, NOT_LOADED),
                }
            }
        )*
    };
}

/// What the documentation says about a function that is missing.
macro_rules! failure_doc {
    (nothing) => {
        "Does nothing if the provider does not have it (`errno` is `EOPNOTSUPP`) or cannot be loaded (`ELIBACC`)."
    };
    (null) => {
        "Null if the provider does not have it (`errno` is `EOPNOTSUPP`) or cannot be loaded (`ELIBACC`)."
    };
    (zero) => {
        "0 if the provider does not have it (`errno` is `EOPNOTSUPP`) or cannot be loaded (`ELIBACC`)."
    };
    (minus_one) => {
        "-1 if the provider does not have it (`errno` is `EOPNOTSUPP`) or cannot be loaded (`ELIBACC`)."
    };
    (errno) => {
        "`EOPNOTSUPP` if the provider does not have it, `ELIBACC` if it cannot be loaded; `errno` is set as well."
    };
    (negative_errno) => {
        "`-EOPNOTSUPP` if the provider does not have it, `-ELIBACC` if it cannot be loaded; `errno` is set as well."
    };
}

macro_rules! functions {
    (verbs { $($verbs:tt)* } rdmacm { $($rdmacm:tt)* } efa { $($efa:tt)* }) => {
        library! {
            /// The functions of libibverbs.
            Verbs, verbs, "libibverbs", $($verbs)*
        }
        library! {
            /// The functions of librdmacm.
            Rdmacm, rdmacm, "librdmacm", $($rdmacm)*
        }
        library! {
            /// The functions of libefa.
            Efa, efa, "libefa", $($efa)*
        }
    };
}

#[cfg(not(feature = "bindgen"))]
include!("functions.rs");
#[cfg(feature = "bindgen")]
include!(concat!(env!("OUT_DIR"), "/functions.rs"));

/// The name of a symbol; the macro has added the terminating zero.
fn c_name(name: &'static str) -> &'static CStr {
    CStr::from_bytes_with_nul(name.as_bytes()).expect("an identifier has no zero byte inside")
}

/// What a library that cannot be loaded is reported as to C-style callers; [`provider::verbs`] tells more.
const NOT_LOADED: c_int = libc::ELIBACC;

/// Sets the calling thread's `errno`.
pub(crate) fn set_errno(error: c_int) {
    // SAFETY: the function has no preconditions.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: it returned the address of this thread's `errno`, an `int` that no other thread accesses.
    unsafe { errno.write(error) };
}
