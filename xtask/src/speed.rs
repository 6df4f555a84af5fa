//! `cargo xtask speed`: the software device beside plain UDP and the kernel's SoftRoCE, in one guest. It judges nothing: on a
//! machine that is emulated, the kernel's part of the work counts for more than elsewhere.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::progress::say;
use crate::vm::{self, Job, MachineArgs, RdmaCore};
use crate::{artifacts, workspace};

/// Options of `cargo xtask speed`.
#[derive(clap::Args)]
pub(crate) struct SpeedArgs {
    #[command(flatten)]
    machine: MachineArgs,
    /// How many round trips are measured of each kind
    #[arg(long, default_value_t = 2000, value_name = "N")]
    iters: u64,
    /// How many messages of 64 KiB are written to measure a bandwidth
    #[arg(long, default_value_t = 1000, value_name = "N")]
    messages: u64,
    /// Seconds that all of it may take
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
}

/// The kernel has the port of RoCE in its network namespace: the software device gets another one.
const BOTH: &str = r#"
set -e
ip netns add soft
ip -n soft link set lo up
ip netns exec soft "$@"
echo
"$@" --installed
"#;

/// Runs the command; returns 0 if both were measured.
pub(crate) fn run(args: &SpeedArgs) -> Result<u8> {
    let guest = vm::prepare(&args.machine)?;
    let build = ["build", "--release", "--package", "ibverbs-examples", "--example", "soft_speed"];
    let programs = artifacts::build(workspace::cargo().args(build))?;
    let program = &programs.first().context("the example soft_speed was not built")?.path;
    let [iters, messages] = [args.iters, args.messages].map(|count| count.to_string());
    let script = ["bash", "-c", BOTH, "bash"].map(Into::into).into_iter();
    let options = ["--iters", &iters, "--messages", &messages].map(Into::into);
    let command: Vec<_> = script.chain([program.into()]).chain(options).collect();
    say(format_args!("measuring under Linux {}", guest.release()));
    let outcome = guest.run(&Job {
        command: &command,
        folder: workspace::root(),
        writable: &[],
        devices: 1,
        networks: &[],
        rdma_core: RdmaCore::Pinned,
        timeout: Some(Duration::from_secs(args.timeout)),
        keep_stdout: false,
    })?;
    Ok(outcome.status)
}
