//! Programs and libraries of the host: is it there, and if not, install its package or say how.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{bail, Context, Result};

use crate::process;
use crate::progress::say;

/// How to see whether something is installed.
enum Presence {
    Executable(&'static str),
    PkgConfig(&'static str),
    AnyFile(&'static [&'static str]),
}

/// Something the host must have, and the Debian and Ubuntu package that brings it.
pub(crate) struct Need {
    presence: Presence,
    package: &'static str,
}

impl Need {
    /// A program that is found on the path or in an `sbin` folder.
    pub(crate) const fn executable(name: &'static str, package: &'static str) -> Self {
        Self { presence: Presence::Executable(name), package }
    }

    /// A library whose development files `pkg-config` knows.
    pub(crate) const fn library(module: &'static str, package: &'static str) -> Self {
        Self { presence: Presence::PkgConfig(module), package }
    }

    /// A file that stands in one of several places.
    pub(crate) const fn any_file(paths: &'static [&'static str], package: &'static str) -> Self {
        Self { presence: Presence::AnyFile(paths), package }
    }

    fn is_met(&self) -> bool {
        match self.presence {
            Presence::Executable(name) => find(name).is_some(),
            Presence::PkgConfig(module) => Command::new("pkg-config")
                .args(["--exists", module])
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success()),
            Presence::AnyFile(paths) => paths.iter().any(|path| Path::new(path).is_file()),
        }
    }
}

/// The full path of a program. Looks into the `sbin` folders too, which are not on everybody's path.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// A command for a program that [`need`] has seen to.
pub(crate) fn command(name: &str) -> Command {
    Command::new(find(name).unwrap_or_else(|| name.into()))
}

/// Installs the packages of whatever is missing; an error names the command that would.
pub(crate) fn need(needs: &[Need]) -> Result<()> {
    let missing = missing_packages(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("apt-get install -y --no-install-recommends {}", missing.join(" "));
    if find("apt-get").is_none() {
        bail!(
            "this needs what the Debian packages {} bring, and there is no apt-get here: install \
             their counterparts",
            missing.join(", ")
        );
    }
    let Some(prefix) = privilege() else {
        bail!("this needs packages that are not installed; install them with\n    sudo {by_hand}");
    };
    say(format_args!("installing missing packages: {}", missing.join(" ")));
    install(prefix, &missing)
        .with_context(|| format!("cannot install what is needed (by hand: `sudo {by_hand}`)"))?;
    match missing_packages(needs).as_slice() {
        [] => Ok(()),
        still => bail!("still missing after `{by_hand}`: what {} should bring", still.join(", ")),
    }
}

fn missing_packages(needs: &[Need]) -> Vec<&'static str> {
    let mut missing: Vec<_> =
        needs.iter().filter(|need| !need.is_met()).map(|need| need.package).collect();
    missing.sort_unstable();
    missing.dedup();
    missing
}

/// What stands before a command that needs root: nothing for root, `sudo` if it asks nothing.
fn privilege() -> Option<&'static [&'static str]> {
    if Path::new("/proc/self").metadata().is_ok_and(|me| me.uid() == 0) {
        return Some(&[]);
    }
    let asks_nothing = process::run(Command::new("sudo").args(["-n", "true"])).is_ok();
    asks_nothing.then_some(&["sudo", "-n"])
}

fn install(prefix: &[&str], packages: &[&str]) -> Result<()> {
    let apt_get = |arguments: &[&str]| {
        let mut words = prefix.iter().chain(&["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        let mut command = Command::new(words.next().expect("there are always three words"));
        command.args(words).args(arguments);
        process::run_shown(&mut command)
    };
    let arguments =
        [&["install", "-y", "-qq", "--no-install-recommends", "-oDpkg::Use-Pty=0"], packages]
            .concat();
    // A fresh container has no package lists, an old machine stale ones: update only if needed.
    apt_get(&arguments).or_else(|_| {
        apt_get(&["update", "-qq"])?;
        apt_get(&arguments)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_named_once_and_only_if_missing() {
        let needs = [
            Need::executable("sh", "dash"),
            Need::executable("no-such-program-b", "b"),
            Need::executable("no-such-program-a", "a"),
            Need::library("no-such-module", "a"),
            Need::any_file(&["/no/such/file", "/proc/self/status"], "c"),
        ];
        assert_eq!(missing_packages(&needs), ["a", "b"]);
    }
}
