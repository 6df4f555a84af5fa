//! The cache: downloaded kernels and package lists, outside the workspace so that all clones share it.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use crate::progress::say;

/// The environment variable that overrides where the cache is.
const OVERRIDE: &str = "IBVERBS_VM_CACHE";

/// The cache folder.
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The folder from the environment, created if it is not there.
    pub(crate) fn open() -> Result<Self> {
        let folder = std::env::var_os(OVERRIDE)
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("XDG_CACHE_HOME")?).join("ibverbs-vm")))
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/ibverbs-vm")));
        let Some(folder) = folder.filter(|folder| folder.is_absolute()) else {
            bail!("no place for the cache: set {OVERRIDE} to the absolute path of a folder");
        };
        fs::create_dir_all(&folder).with_context(|| {
            format!("cannot create the cache {}: set {OVERRIDE} to another place", folder.display())
        })?;
        Ok(Self { folder })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps other runs from changing the cache until the lock is dropped.
    pub(crate) fn lock(&self) -> Result<File> {
        lock(&self.folder.join("lock"))
    }
}

/// Takes an exclusive lock on a file, and says so if it has to wait.
pub(crate) fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    if let Err(TryLockError::WouldBlock) = file.try_lock() {
        say(format_args!("waiting for another run, which holds {}", path.display()));
    }
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}
