//! `cargo xtask test`: all tests. Those that need a device run under a real SoftRoCE kernel, the others here.

mod leaks;
mod report;

use std::ffi::OsString;
use std::time::{Duration, Instant};

use anyhow::{bail, Result};

use crate::artifacts::Program;
use crate::link::{self, Link};
use crate::progress::say;
use crate::script::{Run, Script};
use crate::vm::{self, Job, MachineArgs, Network, Prepared};
use crate::{artifacts, peers, process, workspace};
use report::{Counts, Line, Report};

/// The package whose tests need a device.
const DEVICE_TESTS: &str = "ibverbs-tests";

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct TestArgs {
    #[command(flatten)]
    machine: MachineArgs,
    /// How the tests find the native library
    #[arg(long, value_enum, default_value_t)]
    link: Link,
    /// Only the tests that need a device
    #[arg(long)]
    device_only: bool,
    /// Run the tests that need a device under a leak detector, and no others
    #[arg(long)]
    leaks: bool,
    /// Seconds that one test program may take
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    timeout: u64,
    /// Arguments of the test programs, after --: a part of the tests' names, for instance
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<OsString>,
}

/// Runs the command; returns 0 if tests ran and all passed.
pub(crate) fn run(args: &TestArgs) -> Result<u8> {
    let guest = vm::prepare(&args.machine)?;
    peers::need()?;
    let build = args.link.prepare()?;
    let mut report = Report::default();
    if !args.device_only && !args.leaks {
        report.add(host_tests(args, &build)?);
    }
    for line in device_tests(args, &build, &guest)? {
        report.add(line);
    }
    print!("\n{report}");
    Ok(u8::from(!report.is_success()))
}

/// Runs everything that needs no device, documentation tests included.
fn host_tests(args: &TestArgs, build: &link::Prepared) -> Result<Line> {
    say("running the tests that need no device");
    let mut cargo =
        build.cargo(&["test", "--workspace", "--exclude", DEVICE_TESTS, "--no-fail-fast"]);
    cargo.arg("--").args(&args.arguments);
    let begin = Instant::now();
    let (passed, stdout) = process::relay(&mut cargo)?;
    Ok(Line { name: "host".into(), passed, counts: Counts::of(&stdout), time: begin.elapsed() })
}

/// Runs the tests that need a device, all in one guest.
fn device_tests(
    args: &TestArgs,
    build: &link::Prepared,
    guest: &Prepared<'_>,
) -> Result<Vec<Line>> {
    let mut cargo = build.cargo(&["test", "--package", DEVICE_TESTS, "--no-run"]);
    if args.leaks {
        leaks::prepare()?;
        leaks::link(&mut cargo);
    }
    let programs = artifacts::build_tests(&mut cargo)?;
    if programs.is_empty() {
        bail!("the package {DEVICE_TESTS} has no tests");
    }
    let runs: Vec<Run> =
        programs.iter().map(|program| args.run(program, guest.kernel_major())).collect();
    let script = Script { runs: &runs, timeout: Duration::from_secs(args.timeout) };
    say(format_args!("running the tests that need a device, under Linux {}", guest.release()));
    let outcome = guest.run(&Job {
        command: &["bash".into(), "-c".into(), script.text()],
        // As `cargo test` does: in the folder of the package.
        folder: &workspace::root().join("tests"),
        writable: &[],
        devices: vm::DEFAULT_DEVICES,
        networks: &[Network::Wire],
        rdma_core: args.link.rdma_core(),
        timeout: Some(script.timeout()),
        keep_stdout: true,
    })?;
    let ended = script.results(&String::from_utf8_lossy(&outcome.stdout));
    Ok(ended.into_iter().map(Line::from).collect())
}

impl TestArgs {
    /// How a test program is run.
    fn run(&self, program: &Program, kernel_major: u64) -> Run {
        let mut command = Vec::new();
        if self.leaks {
            command.extend(["env".into(), leaks::environment()]);
        }
        command.push(program.path.clone().into());
        command.push(format!("--test-threads={}", threads(kernel_major)).into());
        command.extend(self.arguments.iter().cloned());
        Run { name: program.name.clone(), command }
    }
}

/// How many tests may run at once in one program. With several, SoftRoCE of kernel 7.2 was seen to hang.
fn threads(kernel_major: u64) -> usize {
    if kernel_major >= 7 {
        1
    } else {
        2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_kernels_get_one_thread() {
        assert_eq!((threads(6), threads(7)), (2, 1));
    }
}
