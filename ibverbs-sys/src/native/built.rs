//! Feature `static-linking`: the functions are part of the program, and every reference to one is direct.

use core::ffi::{c_char, c_int, c_uint, c_void};

use libc::{
    epoll_event, fd_set, iovec, msghdr, nfds_t, off_t, pollfd, sockaddr, socklen_t, timeval,
};

use super::LoadError;
use crate::bindings::*;
use crate::table::{Efa, Rdmacm, Verbs};

pub(crate) const NAME: &str = "rdma-core, built in";

/// A module for each library: the symbols, and the table of them.
macro_rules! library {
    ($library:ident: $table:ident, $(fn $name:ident($($argument:ident: $ty:ty),*) -> $result:ty => $failure:ident;)*) => {
        mod $library {
            use super::*;

            extern "C" {
                $(fn $name($($argument: $ty),*) -> $result;)*
            }

            pub(super) const TABLE: $table = $table { $($name: Some($name)),* };
        }
    };
}

macro_rules! functions {
    (verbs { $($verbs:tt)* } rdmacm { $($rdmacm:tt)* } efa { $($efa:tt)* }) => {
        library! { verbs_symbols: Verbs, $($verbs)* }
        library! { rdmacm_symbols: Rdmacm, $($rdmacm)* }
        library! { efa_symbols: Efa, $($efa)* }
    };
}

#[cfg(not(feature = "bindgen"))]
include!("../functions.rs");
#[cfg(feature = "bindgen")]
include!(concat!(env!("OUT_DIR"), "/functions.rs"));

extern "C" {
    /// Brings every provider into the program: the constructor of each registers it.
    static verbs_provider_all: c_void;

    /// Does nothing; its arguments are what refers to the providers.
    fn ibv_static_providers(unused: *mut c_void, ...);
}

pub(crate) fn verbs() -> Result<Verbs, LoadError> {
    let all = &raw const verbs_provider_all;
    // SAFETY: a list of addresses of providers, ended by null, which the function does not look at.
    unsafe { ibv_static_providers(core::ptr::null_mut(), all, core::ptr::null::<c_void>()) };
    Ok(verbs_symbols::TABLE)
}

pub(crate) fn rdmacm() -> Result<Rdmacm, LoadError> {
    Ok(rdmacm_symbols::TABLE)
}

pub(crate) fn efa() -> Result<Efa, LoadError> {
    Ok(efa_symbols::TABLE)
}
