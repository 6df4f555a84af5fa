//! Which distribution's archive the guest's kernels come from.

use std::fs;

use anyhow::{bail, Result};

use crate::apt::sources::{Archive, Debian};
use crate::apt::{SourceList, Suite};

/// Where Debian's kernels are: 6.1 in bookworm, 6.12 in trixie and in bookworm's backports, newer ones in sid.
const SUITES: [Suite; 6] = [
    Suite { archive: Archive::Main, name: "bookworm" },
    Suite { archive: Archive::Security, name: "bookworm-security" },
    Suite { archive: Archive::Main, name: "bookworm-backports" },
    Suite { archive: Archive::Main, name: "trixie" },
    Suite { archive: Archive::Security, name: "trixie-security" },
    Suite { archive: Archive::Main, name: "sid" },
];

/// A distribution whose kernels can be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Distribution {
    /// Any of Debian's releases, whatever the machine runs.
    Debian(Debian),
    /// The release of Ubuntu that the machine runs.
    Ubuntu,
}

impl Distribution {
    /// Debian if the machine's apt, or the environment, knows an archive of it; else Ubuntu, if that is what it runs.
    pub(crate) fn of_this_machine() -> Result<Self> {
        if cfg!(not(target_arch = "x86_64")) {
            bail!(
                "the guest is set up for x86_64 hosts only, and this is {}: run the command on a machine with an RDMA \
                 device, or with SoftRoCE (`rdma link add rxe0 type rxe netdev ETH`)",
                std::env::consts::ARCH
            );
        }
        let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        match Debian::of_this_machine() {
            Ok(debian) => Ok(Self::Debian(debian)),
            Err(_) if is_ubuntu(&os_release) => Ok(Self::Ubuntu),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Debian(_) => "Debian's archive",
            Self::Ubuntu => "this machine's Ubuntu archive",
        }
    }

    /// The kernel that is used if none is asked for; none means the newest.
    pub(crate) fn default_kernel(&self) -> Option<&'static str> {
        match self {
            Self::Debian(_) => Some("6.12"),
            Self::Ubuntu => None,
        }
    }

    /// How the names of ordinary kernels end.
    pub(crate) fn flavour(&self) -> &'static str {
        match self {
            Self::Debian(_) => "amd64",
            Self::Ubuntu => "generic",
        }
    }

    /// What apt should read packages from.
    pub(crate) fn sources(&self) -> SourceList<'_> {
        match self {
            Self::Debian(archive) => SourceList::Debian { archive, kind: "deb", suites: &SUITES },
            Self::Ubuntu => SourceList::OfTheMachine,
        }
    }
}

/// Whether an `os-release` file is that of Ubuntu or of one of its derivatives.
fn is_ubuntu(os_release: &str) -> bool {
    let values = os_release.lines().filter_map(|line| line.split_once('='));
    values
        .filter(|(key, _)| matches!(*key, "ID" | "ID_LIKE"))
        .any(|(_, value)| value.trim_matches('"').split_whitespace().any(|id| id == "ubuntu"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ubuntu_and_its_derivatives() {
        assert!(is_ubuntu("NAME=\"Ubuntu\"\nID=ubuntu\nID_LIKE=debian\n"));
        assert!(is_ubuntu("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"));
        assert!(!is_ubuntu("ID=debian\nHOME_URL=\"ubuntu\"\n"));
        assert!(!is_ubuntu(""));
    }
}
