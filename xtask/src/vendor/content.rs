//! The hash over the content of a source tree, the same for every way to get the same release.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use sha2::{Digest, Sha256};

use super::lock::Lock;

/// What a tree contains.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Content {
    /// SHA-256 over each file's path, length and bytes, in the order of the paths' bytes.
    ///
    /// Covered is what the release consists of, however it was packed:
    /// - not files and folders whose name starts with a dot: they are version control's and its hosts' (`.git`,
    ///   `.gitignore`, `.github`), which archives leave out or not, and nothing is compiled from them;
    /// - not modes and times: they depend on who unpacked the tree, where, and with which umask;
    /// - not empty folders: git has none.
    pub(crate) sha256: String,
    /// The number of files covered.
    pub(crate) files: usize,
}

impl Content {
    pub(crate) fn of(tree: &Path) -> Result<Self> {
        let files = files(tree)?;
        let mut hash = Sha256::new();
        for file in &files {
            let path = tree.join(file);
            let bytes =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let name = file.as_os_str().as_encoded_bytes();
            // Each part's length goes first, so that no two trees make the same stream.
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(&bytes);
        }
        Ok(Self { sha256: hex(&hash.finalize()), files: files.len() })
    }

    /// An error unless this is the content that the lock pins.
    pub(crate) fn verify(&self, lock: &Lock) -> Result<()> {
        if self.sha256 == lock.sha256 {
            return Ok(());
        }
        bail!(
            "not the content of rdma-core {}: {} files with hash {}, but the lock file pins {} files with hash {}",
            lock.version,
            self.files,
            self.sha256,
            lock.files,
            lock.sha256
        )
    }
}

/// The files that count, relative to the tree and sorted.
pub(crate) fn files(tree: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    collect(tree, Path::new(""), &mut found)?;
    found.sort_by(|a, b| a.as_os_str().as_encoded_bytes().cmp(b.as_os_str().as_encoded_bytes()));
    Ok(found)
}

fn collect(tree: &Path, below: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let folder = tree.join(below);
    let list = fs::read_dir(&folder)
        .with_context(|| format!("cannot read the folder {}", folder.display()))?;
    for entry in list {
        let entry =
            entry.with_context(|| format!("cannot read the folder {}", folder.display()))?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = below.join(name);
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(tree, &path, found)?;
        } else if kind.is_file() {
            found.push(path);
        } else {
            // The release has none, and a link could bring in what the hash does not cover.
            bail!("{} is neither a file nor a folder", tree.join(path).display());
        }
    }
    Ok(())
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing into a String cannot fail");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn hash(files: &[(&str, &str)]) -> String {
        Content::of(tree(files).path()).unwrap().sha256
    }

    #[test]
    fn names_and_bytes_count() {
        let one = hash(&[("a/b", "x"), ("c", "y")]);
        assert_eq!(one, hash(&[("c", "y"), ("a/b", "x")]));
        assert_ne!(one, hash(&[("a/b", "x"), ("c", "z")]));
        assert_ne!(one, hash(&[("a/b", "x"), ("d", "y")]));
        assert_ne!(one, hash(&[("a/b", "x"), ("c", "y"), ("e", "")]));
        // The same bytes, cut elsewhere.
        assert_ne!(hash(&[("ab", "c")]), hash(&[("a", "bc")]));
    }

    #[test]
    fn what_packing_changes_does_not_count() {
        let plain = tree(&[("a", "x")]);
        let packed = tree(&[
            ("a", "x"),
            (".gitignore", "y"),
            (".github/ci", "z"),
            ("debian/.gitignore", ""),
        ]);
        fs::create_dir(packed.path().join("empty")).unwrap();
        assert_eq!(Content::of(plain.path()).unwrap(), Content::of(packed.path()).unwrap());
    }

    #[test]
    fn links_are_refused() {
        let tree = tree(&[("a", "x")]);
        std::os::unix::fs::symlink("/etc/passwd", tree.path().join("b")).unwrap();
        let error = Content::of(tree.path()).unwrap_err().to_string();
        assert!(error.contains("neither a file nor a folder"), "{error}");
    }

    #[test]
    fn the_lock_decides() {
        let content = Content::of(tree(&[("a", "x")]).path()).unwrap();
        let lock = |sha256: &str| Lock { version: "65.0".into(), sha256: sha256.into(), files: 7 };
        assert!(content.verify(&lock(&content.sha256)).is_ok());
        let error = content.verify(&lock("00")).unwrap_err().to_string();
        assert!(
            error.contains("1 files") && error.contains("pins 7 files with hash 00"),
            "{error}"
        );
    }
}
