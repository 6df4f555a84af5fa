//! A C compiler and the headers of rdma-core, for the tests that compare this crate with them.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The headers to compare with: those that `RDMA_CORE_INCLUDE_DIR` names, or those of the pinned release.
pub fn include_directory() -> PathBuf {
    let directory = std::env::var_os("RDMA_CORE_INCLUDE_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../vendor/include"),
        PathBuf::from,
    );
    assert!(
        directory.join("infiniband/verbs.h").is_file(),
        "this test compares the bindings with the C headers, and there is no infiniband/verbs.h in {}: run \
         `cargo xtask vendor`, or let RDMA_CORE_INCLUDE_DIR name a directory with the headers of rdma-core 65.0",
        directory.display(),
    );
    directory
}

/// Compiles a C program to `output`, with `CC` or else `cc`; returns the compiler's messages if it fails.
pub fn compile(source: &str, output: &Path) -> Result<(), String> {
    let file = output.with_extension("c");
    std::fs::write(&file, source)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let result = Command::new(&compiler)
        .args(["-std=gnu11", "-Wall", "-Wextra", "-I"])
        .arg(include_directory())
        .arg("-o")
        .arg(output)
        .arg(&file)
        .output()
        .unwrap_or_else(|error| {
            panic!("this test needs a C compiler, and `{compiler}` cannot be run: {error}. Install one, or set CC")
        });
    if result.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&result.stderr).into_owned())
    }
}

/// A file name for the test's own use.
pub fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}
