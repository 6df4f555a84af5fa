//! The folder of one run, and what is left of runs that were killed.

use std::path::Path;

use anyhow::{Context, Result};

const PREFIX: &str = "ibverbs-vm-";

/// A new folder, which goes away when it is dropped. Its name says whose it is: see [`sweep`].
pub(crate) fn folder() -> Result<tempfile::TempDir> {
    let temporary = std::env::temp_dir();
    sweep(&temporary);
    tempfile::Builder::new()
        .prefix(&format!("{PREFIX}{}-", std::process::id()))
        .tempdir_in(&temporary)
        .with_context(|| format!("cannot make a folder in {}", temporary.display()))
}

/// Removes the folders of processes that are no more: who is interrupted drops nothing.
fn sweep(temporary: &Path) {
    for entry in std::fs::read_dir(temporary).into_iter().flatten().flatten() {
        let owner = entry.file_name().to_str().and_then(owner);
        if owner.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            // Those of other users cannot be removed, and need not be.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The process that a folder belongs to.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_without_an_owner_are_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = temporary.path().join(name);
            std::fs::create_dir(&path).unwrap();
            path
        };
        let mine = make(&format!("{PREFIX}{}-abc", std::process::id()));
        // Larger than any process number.
        let dead = make(&format!("{PREFIX}4294967295-abc"));
        let foreign = make("ibverbs-vm-notes");
        sweep(temporary.path());
        assert!(mine.exists() && foreign.exists() && !dead.exists());
    }
}
