//! Feature `dynamic-linking`: the shared libraries are dependencies of the program, and already open.
//!
//! Only one symbol of each library is linked by name, which makes the program depend on it. The rest is looked up, so that
//! a library that is too old for some function is no link error.

use core::ffi::{c_int, c_void, CStr};
use core::hint::black_box;

use super::LoadError;
use crate::table::{Efa, Rdmacm, Verbs};

pub(crate) const NAME: &str = "rdma-core, linked dynamically";

mod first_symbols {
    use core::ffi::{c_int, c_void};

    extern "C" {
        pub(super) fn ibv_get_device_list(num_devices: *mut c_int) -> *mut c_void;
        pub(super) fn rdma_create_event_channel() -> *mut c_void;
        #[cfg(ibverbs_linked_efa)]
        pub(super) fn efadv_create_driver_qp(
            pd: *mut c_void,
            attr: *mut c_void,
            driver_qp_type: u32,
        ) -> *mut c_void;
    }
}

pub(crate) fn verbs() -> Result<Verbs, LoadError> {
    black_box(
        first_symbols::ibv_get_device_list as unsafe extern "C" fn(*mut c_int) -> *mut c_void,
    );
    let library = opened("libibverbs", c"libibverbs.so.1")?;
    // SAFETY: the symbols of libibverbs have the signatures of its headers, in every version that has this soname; and a
    // dependency of the program stays open as long as the program's code does.
    Ok(unsafe { Verbs::from_symbols(|name| symbol(library, name)) })
}

pub(crate) fn rdmacm() -> Result<Rdmacm, LoadError> {
    black_box(first_symbols::rdma_create_event_channel as unsafe extern "C" fn() -> *mut c_void);
    let library = opened("librdmacm", c"librdmacm.so.1")?;
    // SAFETY: as for libibverbs.
    Ok(unsafe { Rdmacm::from_symbols(|name| symbol(library, name)) })
}

#[cfg(ibverbs_linked_efa)]
pub(crate) fn efa() -> Result<Efa, LoadError> {
    black_box(
        first_symbols::efadv_create_driver_qp
            as unsafe extern "C" fn(*mut c_void, *mut c_void, u32) -> *mut c_void,
    );
    let library = opened("libefa", c"libefa.so.1")?;
    // SAFETY: as for libibverbs.
    Ok(unsafe { Efa::from_symbols(|name| symbol(library, name)) })
}

#[cfg(not(ibverbs_linked_efa))]
pub(crate) fn efa() -> Result<Efa, LoadError> {
    Err(LoadError {
        library: "libefa",
        reason: "it was not found when this program was built, so the program was not linked with it".to_owned(),
        advice: "Install its development files (Debian and Ubuntu: libibverbs-dev; Fedora and RHEL: rdma-core-devel), \
                 and build the program again",
    })
}

/// A handle of a library that the program depends on.
fn opened(library: &'static str, soname: &'static CStr) -> Result<*mut c_void, LoadError> {
    // Not the global scope: a program that was itself opened as a plug-in has its dependencies in a scope of its own.
    // SAFETY: a string; and with RTLD_NOLOAD nothing is loaded, so no initializer runs.
    let handle = unsafe { libc::dlopen(soname.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        return Err(LoadError {
            library,
            reason: format!("the program is linked with it, but no {} is loaded", soname.to_string_lossy()),
            advice: "The program was linked with a library of another version than 1 of this interface: build it again \
                     with rdma-core, or with the cargo feature `dynamic-loading`",
        });
    }
    Ok(handle)
}

/// The address of a symbol, or null.
fn symbol(library: *mut c_void, name: &CStr) -> *mut c_void {
    // SAFETY: a handle that `dlopen` returned and nobody closes, and a string.
    unsafe { libc::dlsym(library, name.as_ptr()) }
}
