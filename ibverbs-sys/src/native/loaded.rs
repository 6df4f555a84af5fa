//! Feature `dynamic-loading`: the shared libraries are opened at the first call that needs them.

use core::ffi::{c_void, CStr};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::LoadError;
use crate::table::{Efa, Rdmacm, Verbs};

pub(crate) const NAME: &str = "rdma-core, loaded at run time";

pub(crate) fn verbs() -> Result<Verbs, LoadError> {
    let library = open(&LIBIBVERBS)?;
    // SAFETY: the symbols of libibverbs have the signatures of its headers, in every version that has this soname; and
    // the library is never closed.
    Ok(unsafe { Verbs::from_symbols(|name| library.symbol(name)) })
}

pub(crate) fn rdmacm() -> Result<Rdmacm, LoadError> {
    let library = open(&LIBRDMACM)?;
    // SAFETY: as for libibverbs.
    Ok(unsafe { Rdmacm::from_symbols(|name| library.symbol(name)) })
}

pub(crate) fn efa() -> Result<Efa, LoadError> {
    let library = open(&LIBEFA)?;
    // SAFETY: as for libibverbs.
    Ok(unsafe { Efa::from_symbols(|name| library.symbol(name)) })
}

/// A shared library to open.
struct Wanted {
    name: &'static str,
    soname: &'static str,
    /// A symbol that every version has: a file without it is not this library.
    first_symbol: &'static CStr,
    advice: &'static str,
}

const LIBIBVERBS: Wanted = Wanted {
    name: "libibverbs",
    soname: "libibverbs.so.1",
    first_symbol: c"ibv_get_device_list",
    advice: "Install it (Debian and Ubuntu: `apt-get install libibverbs1 ibverbs-providers`; Fedora and RHEL: \
             `dnf install libibverbs`), or put the directory that has it into LD_LIBRARY_PATH, or build the program \
             with the cargo feature `static-linking`, which needs no library at run time",
};

const LIBRDMACM: Wanted = Wanted {
    name: "librdmacm",
    soname: "librdmacm.so.1",
    first_symbol: c"rdma_create_event_channel",
    advice: "Install it (Debian and Ubuntu: `apt-get install librdmacm1`; Fedora and RHEL: `dnf install librdmacm`), \
             or put the directory that has it into LD_LIBRARY_PATH, or build the program with the cargo feature \
             `static-linking`, which needs no library at run time",
};

const LIBEFA: Wanted = Wanted {
    name: "libefa",
    soname: "libefa.so.1",
    first_symbol: c"efadv_create_driver_qp",
    advice: "Install it (Debian and Ubuntu: `apt-get install ibverbs-providers`; Fedora and RHEL: \
             `dnf install libibverbs`), or put the directory that has it into LD_LIBRARY_PATH, or build the program \
             with the cargo feature `static-linking`, which needs no library at run time",
};

/// A library that stays open for the rest of the process.
struct Opened(Library);

impl Opened {
    /// The address of a symbol, or null.
    fn symbol(&self, name: &CStr) -> *mut c_void {
        // SAFETY: the type asked for is a pointer, for which any address is a valid value; nothing is called here.
        let symbol = unsafe { self.0.get::<*mut c_void>(name.to_bytes_with_nul()) };
        symbol.map_or(core::ptr::null_mut(), |symbol| *symbol)
    }
}

fn open(wanted: &Wanted) -> Result<core::mem::ManuallyDrop<Opened>, LoadError> {
    // SAFETY: the initializers of rdma-core's libraries register fork handlers and providers, and have no requirement of
    // the caller; which file has this soname is the administrator's decision, as for every dynamically linked program.
    let opened = unsafe { Library::open(Some(wanted.soname), RTLD_NOW | RTLD_LOCAL) };
    let opened = opened.map_err(|error| LoadError {
        library: wanted.name,
        reason: format!("cannot open {}: {}", wanted.soname, in_full(&error)),
        advice: wanted.advice,
    })?;
    // Never closed: the tables hold its functions, and libibverbs starts no thread but does register providers for good.
    let opened = core::mem::ManuallyDrop::new(Opened(opened));
    if opened.symbol(wanted.first_symbol).is_null() {
        return Err(LoadError {
            library: wanted.name,
            reason: format!(
                "the {} that the loader found has no symbol {}: it is another library of the same file name",
                wanted.soname,
                wanted.first_symbol.to_string_lossy(),
            ),
            advice: wanted.advice,
        });
    }
    Ok(opened)
}

/// An error with its sources, of which libloading keeps the dynamic loader's own message.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri loads no libraries")]
    fn a_file_that_is_not_there_is_named() {
        let error = open(&Wanted { soname: "libibverbs-of-nowhere.so.1", ..LIBIBVERBS })
            .map(drop)
            .unwrap_err();
        assert_eq!(error.library(), "libibverbs");
        assert!(error.reason().contains("libibverbs-of-nowhere.so.1"), "{error}");
        assert!(error.reason().contains("No such file"), "not the loader's own words: {error}");
        assert!(
            error.to_string().contains("apt-get install libibverbs1 ibverbs-providers"),
            "{error}"
        );
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri loads no libraries")]
    fn another_library_of_the_name_is_refused() {
        let error = open(&Wanted { soname: "libc.so.6", ..LIBIBVERBS }).map(drop).unwrap_err();
        assert!(error.reason().contains("no symbol ibv_get_device_list"), "{error}");
    }
}
