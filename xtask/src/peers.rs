//! The programs that the tests of the connection manager talk to: rdma-core's own, as the distribution packages them.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::host::{self, Need};

/// Each with the variable that tells the tests where it is.
pub(crate) const PROGRAMS: [(&str, &str); 3] = [
    ("IBVERBS_TEST_RPING", "rping"),
    ("IBVERBS_TEST_UCMATOSE", "ucmatose"),
    ("IBVERBS_TEST_UDADDY", "udaddy"),
];

const NEEDS: [Need; 3] = [
    Need::executable("rping", "rdmacm-utils"),
    Need::executable("ucmatose", "rdmacm-utils"),
    Need::executable("udaddy", "rdmacm-utils"),
];

/// Installs what is missing.
pub(crate) fn need() -> Result<()> {
    host::need(&NEEDS)
}

/// The path of `rping`, after [`need`].
pub(crate) fn rping() -> Result<PathBuf> {
    host::find("rping").context("rping is not installed")
}

/// The variables for the tests, of those programs that are installed. Where their libraries are hidden, they say that there
/// is none: the tests take one that is not set for a mistake.
pub(crate) fn variables(can_run: bool) -> impl Iterator<Item = (OsString, OsString)> {
    PROGRAMS.iter().filter_map(move |(variable, name)| {
        let path = if can_run { host::find(name)?.into() } else { OsString::new() };
        Some(((*variable).into(), path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_cannot_run_are_told_as_none() {
        let told: Vec<_> = variables(false).collect();
        assert_eq!(told.len(), PROGRAMS.len());
        assert!(told.iter().all(|(_, path)| path.is_empty()));
    }
}
