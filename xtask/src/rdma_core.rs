//! `cargo xtask rdma-core`: the shared libraries and the tools of the pinned rdma-core, built once per release.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::host::{self, Need};
use crate::progress::step;
use crate::vendor::{self, Vendored};
use crate::{cache, process, workspace};

/// What building takes. The compiler's package brings the C library's headers with it.
const NEEDS: [Need; 8] = [
    Need::executable("cc", "build-essential"),
    Need::executable("cmake", "cmake"),
    Need::executable("ninja", "ninja-build"),
    Need::executable("pkg-config", "pkg-config"),
    Need::executable("python3", "python3"),
    Need::library("libnl-3.0", "libnl-3-dev"),
    Need::library("libnl-route-3.0", "libnl-route-3-dev"),
    Need::library("libudev", "libudev-dev"),
];

/// With `IN_PLACE` the libraries find their providers in the build folder, without being installed.
const OPTIONS: [&str; 5] =
    ["-GNinja", "-DCMAKE_BUILD_TYPE=Release", "-DIN_PLACE=1", "-DNO_MAN_PAGES=1", "-DNO_PYVERBS=1"];

/// A build.
pub(crate) struct Built {
    /// `libibverbs.so.1` and its like: what `LD_LIBRARY_PATH` should name.
    pub(crate) libraries: PathBuf,
    /// `ibv_devinfo` and its like: what `PATH` should name.
    pub(crate) programs: PathBuf,
}

impl Built {
    fn in_folder(folder: &Path) -> Self {
        Self { libraries: folder.join("lib"), programs: folder.join("bin") }
    }
}

/// Runs the command: builds, and prints where the libraries are.
pub(crate) fn run() -> Result<()> {
    println!("{}", build()?.libraries.display());
    Ok(())
}

/// Builds what is pinned, unless that has been done.
pub(crate) fn build() -> Result<Built> {
    let pinned = vendor::pinned()?;
    let builds = workspace::target_dir()?.join("rdma-core");
    let folder = builds.join(name(&pinned, &builds));
    let complete = folder.join(".complete");
    if complete.exists() {
        return Ok(Built::in_folder(&folder));
    }
    fs::create_dir_all(&builds).with_context(|| format!("cannot create {}", builds.display()))?;
    let _guard = cache::lock(&builds.join(".lock"))?;
    if !complete.exists() {
        let vendored = vendor::ensure()?;
        need_build_tools()?;
        step(&format!("building rdma-core {}", vendored.version), || compile(&vendored, &folder))?;
        fs::write(&complete, "")?;
    }
    Ok(Built::in_folder(&folder))
}

/// Installs what building rdma-core takes.
pub(crate) fn need_build_tools() -> Result<()> {
    host::need(&NEEDS)
}

/// The build folder's name: changes with the release, with how it is built, and with where: the libraries look for
/// their providers in the folder that they were built in, so that a target folder that was moved has none.
fn name(pinned: &Vendored, builds: &Path) -> String {
    let mut hash = Sha256::new();
    hash.update(builds.as_os_str().as_encoded_bytes());
    hash.update([0]);
    for part in [pinned.sha256.as_str()].iter().chain(&OPTIONS) {
        hash.update(part);
        hash.update([0]);
    }
    format!("{}-{}", pinned.version, vendor::hex(&hash.finalize()[..6]))
}

fn compile(vendored: &Vendored, folder: &Path) -> Result<()> {
    // What an interrupted build left may be half written.
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    process::run(
        host::command("cmake").args(OPTIONS).arg("-S").arg(&vendored.source).arg("-B").arg(folder),
    )?;
    // Everything: the libraries complain about each provider that the configuration names and that is not there.
    process::run(host::command("ninja").arg("-C").arg(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_follows_the_content() {
        let pinned = |sha256: &str| Vendored {
            source: PathBuf::new(),
            version: "65.0".into(),
            sha256: sha256.into(),
        };
        let here = Path::new("/here");
        assert_eq!(name(&pinned("a"), here), name(&pinned("a"), here));
        assert_ne!(name(&pinned("a"), here), name(&pinned("b"), here));
        assert_ne!(name(&pinned("a"), here), name(&pinned("a"), Path::new("/there")));
        assert!(name(&pinned("a"), here).starts_with("65.0-"));
    }
}
