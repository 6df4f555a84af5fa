//! `cargo xtask vendor`: the pinned release of rdma-core in `vendor/rdma-core`, its public headers in `vendor/include`.

mod content;
mod headers;
mod lock;
mod source;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, bail, Context, Result};

use crate::progress::{say, step};
use crate::workspace;
use content::Content;
use lock::Lock;
use source::Source;

pub(crate) use content::hex;

/// Options of `cargo xtask vendor`.
#[derive(clap::Args)]
pub(crate) struct VendorArgs {
    /// Only verify what is there; change nothing
    #[arg(long)]
    check: bool,
}

/// The places below `vendor/`.
struct Places {
    vendor: PathBuf,
    lock: PathBuf,
    source: PathBuf,
    include: PathBuf,
}

impl Places {
    fn new() -> Self {
        let vendor = workspace::root().join("vendor");
        Self {
            lock: vendor.join("rdma-core.lock"),
            source: vendor.join("rdma-core"),
            include: vendor.join("include"),
            vendor,
        }
    }
}

/// The pinned release, verified.
pub(crate) struct Vendored {
    /// The source tree.
    pub(crate) source: PathBuf,
    /// Its version.
    pub(crate) version: String,
    /// The hash of its content.
    pub(crate) sha256: String,
}

/// Runs the command.
pub(crate) fn run(args: &VendorArgs) -> Result<()> {
    let places = Places::new();
    let vendored = if args.check { check(&places)? } else { ensure_in(&places)? };
    say(format_args!("rdma-core {} is in vendor/rdma-core and verified", vendored.version));
    Ok(())
}

/// Makes sure that the pinned release is there.
pub(crate) fn ensure() -> Result<Vendored> {
    ensure_in(&Places::new())
}

/// What the lock file pins, without a look at whether it is there.
pub(crate) fn pinned() -> Result<Vendored> {
    let places = Places::new();
    let lock = Lock::read(&places.lock)?;
    Ok(Vendored { source: places.source, version: lock.version, sha256: lock.sha256 })
}

fn check(places: &Places) -> Result<Vendored> {
    const FIX: &str = "run `cargo xtask vendor` to put it right";
    let lock = Lock::read(&places.lock)?;
    if !places.source.is_dir() {
        bail!("vendor/rdma-core is missing: {FIX}");
    }
    Content::of(&places.source)?.verify(&lock).with_context(|| {
        format!("vendor/rdma-core is not what vendor/rdma-core.lock pins: {FIX}")
    })?;
    if !headers::are_current(&places.source, &places.include)? {
        bail!("vendor/include does not hold the headers of vendor/rdma-core: {FIX}");
    }
    Ok(Vendored { source: places.source.clone(), version: lock.version, sha256: lock.sha256 })
}

fn ensure_in(places: &Places) -> Result<Vendored> {
    let lock = Lock::read(&places.lock)?;
    let _guard = crate::cache::lock(&places.vendor.join(".lock"))?;
    if !is_verified(&places.source, &lock)? {
        fetch(places, &lock)?;
    }
    if !headers::are_current(&places.source, &places.include)? {
        let scratch = scratch(places)?;
        let tree = scratch.path().join("include");
        headers::publish(&places.source, &tree)?;
        put_in_place(&tree, &places.include, scratch.path())?;
    }
    Ok(Vendored { source: places.source.clone(), version: lock.version, sha256: lock.sha256 })
}

/// Whether the tree is there and as pinned; one that is there and differs is announced.
fn is_verified(tree: &Path, lock: &Lock) -> Result<bool> {
    if !tree.exists() {
        return Ok(false);
    }
    match Content::of(tree)?.verify(lock) {
        Ok(()) => Ok(true),
        Err(difference) => {
            say(format_args!("vendor/rdma-core will be replaced: {difference}"));
            Ok(false)
        }
    }
}

/// Tries one source after the other until one has the pinned content.
fn fetch(places: &Places, lock: &Lock) -> Result<()> {
    let mut causes = Vec::new();
    for source in &source::all() {
        match fetch_from(source, places, lock) {
            Ok(()) => return Ok(()),
            Err(cause) => {
                let cause = format!("not from {}: {cause:#}", source.name);
                say(&cause);
                causes.push(cause);
            }
        }
    }
    Err(anyhow!(
        "rdma-core {version} could not be had from any source:\n  {causes}\nSet {named} to its source: an unpacked \
         folder, or a tarball such as Debian's rdma-core_{version}.orig.tar.gz.",
        version = lock.version,
        causes = causes.join("\n  "),
        named = source::NAMED,
    ))
}

fn fetch_from(source: &Source, places: &Places, lock: &Lock) -> Result<()> {
    let scratch = scratch(places)?;
    let tree = scratch.path().join("rdma-core");
    step(&format!("getting rdma-core {} from {}", lock.version, source.name), || {
        (source.unpack)(lock, scratch.path(), &tree)?;
        Content::of(&tree)?.verify(lock)
    })?;
    put_in_place(&tree, &places.source, scratch.path())
}

/// A temporary folder on the same file system, so that what is complete can be renamed into place.
fn scratch(places: &Places) -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix(".scratch-")
        .tempdir_in(&places.vendor)
        .with_context(|| format!("cannot create a folder in {}", places.vendor.display()))
}

/// Renames a complete tree to where it belongs; what was there goes away with the scratch folder.
fn put_in_place(tree: &Path, place: &Path, scratch: &Path) -> Result<()> {
    if place.exists() {
        fs::rename(place, scratch.join("replaced"))
            .with_context(|| format!("cannot move {} out of the way", place.display()))?;
    }
    fs::rename(tree, place)
        .with_context(|| format!("cannot rename {} to {}", tree.display(), place.display()))
}
