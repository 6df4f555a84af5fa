//! A C compiler and the headers of rdma-core, for the tests that compare this crate with them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A C compiler with the headers of rdma-core.
pub struct Compiler {
    headers: PathBuf,
}

impl Compiler {
    /// With the headers that `RDMA_CORE_INCLUDE_DIR` names, which must be there then; or else with those of the pinned
    /// release. `None`, with a line that says so, if these have not been fetched.
    pub fn with_headers() -> Option<Compiler> {
        let named = std::env::var_os("RDMA_CORE_INCLUDE_DIR").map(PathBuf::from);
        let is_named = named.is_some();
        let headers = named
            .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../vendor/include"));
        if headers.join("infiniband/verbs.h").is_file() {
            return Some(Compiler { headers });
        }
        let missing = format!("there is no infiniband/verbs.h in {}", headers.display());
        assert!(!is_named, "{missing}, which RDMA_CORE_INCLUDE_DIR names");
        // Written directly: the test harness would keep what is printed in a test that passes. A closed standard error is no
        // reason to fail.
        let line = format!(
            "SKIPPED: {missing}: `cargo xtask vendor` fetches the headers that the bindings are compared with\n"
        );
        let _ = std::io::stderr().write_all(line.as_bytes());
        None
    }

    /// Where the headers are.
    pub fn headers(&self) -> &Path {
        &self.headers
    }

    /// Compiles a C program to `output`, with `CC` or else `cc`; returns the compiler's messages if it fails.
    pub fn compile(&self, source: &str, output: &Path) -> Result<(), String> {
        let file = output.with_extension("c");
        std::fs::write(&file, source)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let result = Command::new(&compiler)
            .args(["-std=gnu11", "-Wall", "-Wextra", "-I"])
            .arg(&self.headers)
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
}

/// A file name for the test's own use.
pub fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}
