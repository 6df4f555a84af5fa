//! The drop-in library: the static library that cargo makes, linked into a shared one, of which the symbols have versions.
//!
//! It is one file for libibverbs, librdmacm and libefa, since the software device is one: the other two names are links to it,
//! by which the loader knows it again.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::host::{self, Need};
use crate::{artifacts, cache, process, workspace};

const PACKAGE: &str = "ibverbs-soft-drop-in";
const VERSIONS: &str = "ibverbs-soft/drop-in/exports.map";

/// The file, which is named as programs ask for libibverbs.
const FILE: &str = "libibverbs.so.1";
/// What else they ask for.
const LINKS: [&str; 2] = ["librdmacm.so.1", "libefa.so.1"];

/// Builds the library; returns the folder that it is in.
pub(super) fn build() -> Result<PathBuf> {
    host::need(&[Need::executable("cc", "build-essential")])?;
    let build = ["build", "--release", "--package", PACKAGE];
    let archive = artifacts::static_library(workspace::cargo().args(build))?;
    let folder = workspace::target_dir()?.join("drop-in");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let _guard = cache::lock(&folder.join(".lock"))?;
    // Programs that run have the old file, and those that start have either.
    let new = folder.join("new");
    link(&archive, &new)?;
    let file = folder.join(FILE);
    fs::rename(&new, &file).with_context(|| format!("cannot replace {}", file.display()))?;
    for name in LINKS {
        let path = folder.join(name);
        if path.read_link().ok().as_deref() != Some(Path::new(FILE)) {
            symlink(FILE, &path).with_context(|| format!("cannot create {}", path.display()))?;
        }
    }
    Ok(folder)
}

fn link(archive: &Path, into: &Path) -> Result<()> {
    let script = workspace::root().join(VERSIONS);
    let mut cc = host::command("cc");
    cc.arg("-shared").arg("-o").arg(into);
    cc.arg(format!("-Wl,-soname,{FILE}"));
    // All that it names must be there.
    cc.arg(format!("-Wl,--no-undefined-version,--version-script,{}", script.display()));
    // Nothing may be missing; and it has threads, so that it must stay.
    cc.arg("-Wl,-z,defs,-z,nodelete");
    // Everything first, since nothing refers to what is exported; then what of it is used.
    cc.arg("-Wl,--whole-archive").arg(archive).arg("-Wl,--no-whole-archive,--gc-sections");
    process::run(cc.args(["-lgcc_s", "-lc"]))
}
