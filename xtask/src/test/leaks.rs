//! The leak detector: the compiler's LeakSanitizer, linked into the test programs.
//!
//! It is C's own allocator that is watched, which Rust's allocations go through too, so that this needs no nightly
//! toolchain, and sees what the native library allocates.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::host::{self, Need};
use crate::workspace;

/// What names the leaks that are known and meant, in LeakSanitizer's format.
const KNOWN: &str = "tests/leaks.txt";

/// Named, although it is the host's own, because only then do the flags not apply to build scripts and macros as well:
/// a macro is loaded into a compiler that has no detector.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Installs what the detector needs.
pub(crate) fn prepare() -> Result<()> {
    host::need(&[Need::executable("gcc", "build-essential")])
}

/// Makes a cargo command link the detector in.
pub(crate) fn link(cargo: &mut Command) {
    let mut flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    // Without the linker's default libraries, which rustc does not ask for, gcc leaves its sanitizers out as well.
    flags += " -Cdefault-linker-libraries=yes -Clink-arg=-fsanitize=leak";
    // The detector finds out who has allocated by the frame pointers.
    flags += " -Cforce-frame-pointers=yes";
    cargo.args(["--target", TARGET]).env("RUSTFLAGS", flags);
}

/// What the test programs' environment must say, for `env`.
pub(crate) fn environment() -> OsString {
    let known = workspace::root().join(KNOWN);
    // Its own exit status tells a leak from a failing test, which is 101.
    let mut options = OsString::from("LSAN_OPTIONS=exitcode=23");
    if known.is_file() {
        options.push(":print_suppressions=0:suppressions=");
        options.push(known);
    }
    options
}
