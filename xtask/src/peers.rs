//! The programs that the tests of the connection manager talk to: rdma-core's own, as the distribution packages them.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::host::{self, Need};

/// Each with the variable that tells the tests where it is.
const PROGRAMS: [(&str, &str); 3] = [
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

/// The variables for the tests, of those programs that are installed.
pub(crate) fn variables() -> impl Iterator<Item = (OsString, OsString)> {
    PROGRAMS
        .iter()
        .filter_map(|(variable, name)| Some(((*variable).into(), host::find(name)?.into())))
}
