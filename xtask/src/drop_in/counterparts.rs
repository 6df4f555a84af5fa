//! The tests of this workspace that talk to programs of rdma-core, which have the drop-in library here: the software device on both
//! sides, with this crate on one of them.

use anyhow::{bail, Context, Result};

use super::session::Place;
pub(super) use crate::peers::PROGRAMS;
use crate::{host, process, workspace};

/// A program, and the variable that tells the tests where it is.
type Program = (&'static str, &'static str);

/// What the tests with a program are called where their result is told.
pub(super) fn name((_, program): &Program) -> String {
    format!("test rdmacm_{program}")
}

/// Runs the tests with a program; an error has what they wrote.
pub(super) fn run((variable, program): &Program, place: &Place<'_>) -> Result<()> {
    let path = match place.programs {
        Some(folder) => folder.join(program),
        None => host::find(program).with_context(|| format!("{program} is not installed"))?,
    };
    let mut cargo = workspace::cargo();
    cargo.args(["test", "--package", "ibverbs-tests", "--test", &format!("rdmacm_{program}")]);
    // Both are for the software device.
    cargo.env_remove("IBVERBS_TEST_DEVICE").env_remove("IBVERBS_SOFT_ADDR");
    cargo.env(variable, path).env("LD_LIBRARY_PATH", place.libraries);
    let ended = process::complete(&mut cargo)?;
    let wrote = [ended.stdout, ended.stderr].concat();
    let wrote = String::from_utf8_lossy(&wrote);
    // They would succeed without the program, too.
    if !ended.status.success() || wrote.contains("SKIPPED") {
        bail!("{wrote}");
    }
    Ok(())
}
