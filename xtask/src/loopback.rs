//! `cargo xtask loopback`: the example of that name under a real SoftRoCE kernel, with all set-up.

use std::ffi::OsString;

use anyhow::{Context, Result};

use crate::link::Link;
use crate::vm::{self, Job, MachineArgs};
use crate::{artifacts, workspace};

/// Options of `cargo xtask loopback`.
#[derive(clap::Args)]
pub(crate) struct LoopbackArgs {
    #[command(flatten)]
    machine: MachineArgs,
    /// How the example finds the native library
    #[arg(long, value_enum, default_value_t)]
    link: Link,
    /// The example's own arguments, after --
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

/// Runs the command; returns the example's exit status.
pub(crate) fn run(args: &LoopbackArgs) -> Result<u8> {
    let guest = vm::prepare(&args.machine)?;
    let build = args.link.prepare()?;
    let words = ["build", "--package", "ibverbs-examples", "--example", "loopback"];
    let built = artifacts::build(&mut build.cargo(&words))?;
    let program = built.into_iter().next().context("cargo built no example called loopback")?;
    let command: Vec<OsString> =
        [program.path.into()].into_iter().chain(args.arguments.clone()).collect();
    let outcome = guest.run(&Job {
        command: &command,
        folder: workspace::root(),
        writable: &[],
        devices: vm::DEFAULT_DEVICES,
        networks: &[],
        rdma_core: args.link.rdma_core(),
        timeout: None,
        keep_stdout: false,
    })?;
    Ok(outcome.status)
}
