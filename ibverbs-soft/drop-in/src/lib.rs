//! The software device as a shared library that C programs take for libibverbs, librdmacm and libefa.
//!
//! Every public function of theirs is exported by its name, and calls through the table of functions: what the device has is
//! carried out, and what it has not fails as the manual page says that the function does. A program binds all names that it
//! mentions when it starts; so do libraries such as libmlx5, which programs are linked with whether there is such an adapter or
//! not, and which mention functions that are private to rdma-core. These are there as well, and refuse (`private.rs`).
//!
//! `exports.map` says which version each public symbol has. It is generated, like the list in `refused.rs`, by
//! `cargo xtask bindgen`; `cargo xtask drop-in` links the library.

mod private;
mod public;

use std::io::{self, Write};
use std::sync::Once;

use ibverbs_soft::Options;
use ibverbs_sys::provider;

/// Makes the software device what is behind the verbs of this process, as the environment says.
fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| match Options::from_env() {
        Ok(options) => {
            // SAFETY: the functions of ibverbs-soft do what the manual pages say of those in whose place they are.
            let installed = unsafe { provider::install(ibverbs_soft::provider(options)) };
            installed.expect("nothing else in this library installs a provider");
        }
        // Without a provider every verb fails, which a program shows by a number: it is told here why.
        // If it cannot be, the program goes on without: C would not survive a panic.
        Err(error) => drop(writeln!(io::stderr(), "the software device of ibverbs: {error}")),
    });
}

/// What a function returns that says nothing but that it has failed: see `failure` in `ibverbs-sys/build/generate.rs`.
macro_rules! result {
    (nothing) => { () };
    (null) => { *const std::ffi::c_void };
    (errno) => { std::ffi::c_int };
    // As wide as a register, from which C takes what it needs.
    (minus_one) => { isize };
    (zero) => { usize };
}
use result;

/// How it says so.
macro_rules! refuse {
    (nothing) => {
        $crate::not_supported(())
    };
    (null) => {
        $crate::not_supported(std::ptr::null())
    };
    (errno) => {
        $crate::not_supported(libc::EOPNOTSUPP)
    };
    (minus_one) => {
        $crate::not_supported(-1)
    };
    // This is no failure.
    (zero) => {
        0
    };
}
use refuse;

/// Sets `errno`, and returns `value`.
fn not_supported<T>(value: T) -> T {
    // SAFETY: the function has no preconditions.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: it returned the address of this thread's `errno`, which no other thread accesses.
    unsafe { errno.write(libc::EOPNOTSUPP) };
    value
}
