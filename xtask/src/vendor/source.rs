//! Where the source of rdma-core can come from. Each source unpacks what it has; verifying is not its business.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use super::content;
use super::lock::Lock;
use crate::apt::sources::{Archive, Debian};
use crate::apt::{PrivateApt, SourceList, Suite};
use crate::host::{self, Need};
use crate::process;

/// The environment variable that names a folder or a tarball.
pub(crate) const NAMED: &str = "RDMA_CORE_SOURCE";
/// The upstream repository.
const REPOSITORY: &str = "https://github.com/linux-rdma/rdma-core";

/// Puts the source of a release into a folder that does not exist yet (the last argument); the folder before it is there
/// for what is needed on the way.
type Unpack = dyn Fn(&Lock, &Path, &Path) -> Result<()>;

/// One way to get the source.
pub(crate) struct Source {
    /// What it is called in messages.
    pub(crate) name: String,
    pub(crate) unpack: Box<Unpack>,
}

impl Source {
    fn new(
        name: impl Into<String>,
        unpack: impl Fn(&Lock, &Path, &Path) -> Result<()> + 'static,
    ) -> Self {
        Self { name: name.into(), unpack: Box::new(unpack) }
    }
}

/// All sources, in the order in which they are tried: the nearest first.
pub(crate) fn all() -> Vec<Source> {
    let named = std::env::var_os(NAMED).filter(|named| !named.is_empty()).map(PathBuf::from);
    let named = named.map(|named| {
        let name = format!("{} ({NAMED})", named.display());
        Source::new(name, move |_, _, tree| from_path(&named, tree))
    });
    let others = [
        Source::new("Debian's source archive", from_apt),
        Source::new("the upstream repository", from_git),
    ];
    named.into_iter().chain(others).collect()
}

fn from_path(named: &Path, tree: &Path) -> Result<()> {
    if named.is_dir() {
        return copy_tree(named, tree);
    }
    if !named.is_file() {
        bail!("there is no such file or folder");
    }
    unpack_tarball(named, tree)
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    for file in content::files(from)? {
        let (source, target) = (from.join(&file), to.join(&file));
        let folder = target.parent().context("a file is in a folder")?;
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        fs::copy(&source, &target)
            .with_context(|| format!("cannot copy {} to {}", source.display(), target.display()))?;
    }
    Ok(())
}

/// Unpacks a tarball, whose single top folder has a name of its packer's choice.
fn unpack_tarball(tarball: &Path, tree: &Path) -> Result<()> {
    fs::create_dir_all(tree).with_context(|| format!("cannot create {}", tree.display()))?;
    let mut tar = host::command("tar");
    tar.args(["--strip-components=1", "--no-same-owner", "-xf"]).arg(tarball).arg("-C").arg(tree);
    process::run(&mut tar)
}

fn from_apt(lock: &Lock, scratch: &Path, tree: &Path) -> Result<()> {
    let archive = Debian::of_this_machine()?;
    let unstable = [Suite { archive: Archive::Main, name: "sid" }];
    let sources = SourceList::Debian { archive: &archive, kind: "deb-src", suites: &unstable };
    let apt = PrivateApt::new(&scratch.join("apt"), &sources)?;
    let complaints = apt.update()?;
    let listed =
        apt.output("apt-get", &["source", "--print-uris", "rdma-core"]).with_context(|| {
            format!("unstable has no rdma-core; fetching its list said: {complaints}")
        })?;
    let Some(origin) = Origin::find(&listed) else {
        bail!("apt names no upstream tarball of rdma-core:\n{listed}");
    };
    if origin.version != lock.version {
        bail!("unstable has version {} now, not {}", origin.version, lock.version);
    }
    let tarball = scratch.join(origin.file);
    apt.output(
        "/usr/lib/apt/apt-helper",
        &["download-file", origin.uri, &tarball.display().to_string(), origin.hash],
    )?;
    unpack_tarball(&tarball, tree)
}

/// The upstream tarball, out of what `apt-get source --print-uris` lists: `'URI' FILE SIZE HASH` lines.
#[derive(Debug, PartialEq, Eq)]
struct Origin<'a> {
    uri: &'a str,
    file: &'a str,
    version: &'a str,
    hash: &'a str,
}

impl<'a> Origin<'a> {
    fn find(listed: &'a str) -> Option<Self> {
        listed.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let uri = words.next()?.strip_prefix('\'')?.strip_suffix('\'')?;
            let (file, _size, hash) = (words.next()?, words.next()?, words.next()?);
            let (version, kind) = file.strip_prefix("rdma-core_")?.split_once(".orig.tar.")?;
            // A detached signature is called .orig.tar.gz.asc.
            (!kind.contains('.')).then_some(Self { uri, file, version, hash })
        })
    }
}

fn from_git(lock: &Lock, _: &Path, tree: &Path) -> Result<()> {
    host::need(&[Need::executable("git", "git")])?;
    let mut git = host::command("git");
    // Whatever the user configured, the files must be as upstream has them.
    git.args([
        "-c",
        "core.autocrlf=false",
        "-c",
        "advice.detachedHead=false",
        "clone",
        "--quiet",
        "--depth",
        "1",
    ]);
    git.args(["--branch", &format!("v{}", lock.version), REPOSITORY]).arg(tree);
    process::run(git.env("GIT_TERMINAL_PROMPT", "0"))?;
    // The history is no part of the release, and would make this tree a repository within the workspace's own.
    fs::remove_dir_all(tree.join(".git")).context("cannot remove the clone's .git")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upstream_tarball_is_found_in_what_apt_lists() {
        let listed = "Reading package lists...\n\
            'http://a.example/r/rdma-core_65.0-1.dsc' rdma-core_65.0-1.dsc 2940 SHA256:11\n\
            'http://a.example/r/rdma-core_65.0.orig.tar.gz.asc' rdma-core_65.0.orig.tar.gz.asc 8 SHA256:22\n\
            'http://a.example/r/rdma-core_65.0.orig.tar.gz' rdma-core_65.0.orig.tar.gz 2073319 SHA256:33\n\
            'http://a.example/r/rdma-core_65.0-1.debian.tar.xz' rdma-core_65.0-1.debian.tar.xz 9 SHA256:44\n";
        let origin = Origin {
            uri: "http://a.example/r/rdma-core_65.0.orig.tar.gz",
            file: "rdma-core_65.0.orig.tar.gz",
            version: "65.0",
            hash: "SHA256:33",
        };
        assert_eq!(Origin::find(listed), Some(origin));
        assert_eq!(Origin::find("E: Unable to find a source package"), None);
    }

    #[test]
    fn a_tree_is_copied_without_what_does_not_count() {
        let from = tempfile::tempdir().unwrap();
        fs::create_dir_all(from.path().join("a/b")).unwrap();
        fs::create_dir_all(from.path().join(".git")).unwrap();
        fs::write(from.path().join("a/b/file"), "x").unwrap();
        fs::write(from.path().join(".git/HEAD"), "y").unwrap();
        let to = tempfile::tempdir().unwrap();
        copy_tree(from.path(), &to.path().join("tree")).unwrap();
        assert_eq!(fs::read_to_string(to.path().join("tree/a/b/file")).unwrap(), "x");
        assert!(!to.path().join("tree/.git").exists());
    }
}
