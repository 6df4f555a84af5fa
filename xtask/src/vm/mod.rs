//! `cargo xtask vm`: runs a command under a real SoftRoCE kernel, in a throw-away virtual machine.
//!
//! The guest boots a kernel of Debian or Ubuntu and sees the host's files, so that what was built outside runs inside.
//! What it writes is lost, except in the folders that it is given. `kernel` prepares what is booted, `guest` is the
//! script that runs in there, `qemu` boots it, `relay` brings the output back.

mod archive;
mod guest;
mod initrd;
mod kernel;
mod network;
mod qemu;
mod relay;
mod release;
mod scratch;
mod vmlinux;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, Result};
use clap::ValueEnum;

use crate::progress::say;
use crate::{host, peers, rdma_core};
use guest::Script;
use kernel::Kernel;
use qemu::{Accelerator, Boot, Ending, Machine};

pub(crate) use guest::quoted;
pub(crate) use network::Network;

/// The exit status for a command whose time was up.
const TIMED_OUT: u8 = 124;
/// The exit status for a guest that stopped.
const GUEST_DIED: u8 = 125;

/// The number of SoftRoCE devices: two, for tests of what must not be mixed up between devices.
pub(crate) const DEFAULT_DEVICES: u8 = 2;

/// Options of every command that runs a guest.
#[derive(clap::Args, Clone)]
pub(crate) struct MachineArgs {
    /// The kernel's version: 6.1, 6.12, 7.2 ... [default: 6.12 from Debian; on Ubuntu its newest]
    #[arg(long, env = "IBVERBS_VM_KERNEL", value_name = "VERSION")]
    pub(crate) kernel: Option<String>,
    /// The number of the guest's processors
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    smp: u16,
    /// The guest's memory
    #[arg(long, default_value = "2G", value_name = "SIZE")]
    mem: String,
    /// How to run the guest's processors
    #[arg(long, env = "IBVERBS_VM_ACCEL", value_enum, default_value_t)]
    accel: AccelChoice,
    /// Seconds that booting may take
    #[arg(long, default_value_t = 90, value_name = "SECONDS")]
    boot_timeout: u64,
    /// Print the kernel's warnings even if there is nothing alarming in them
    #[arg(long)]
    dmesg: bool,
}

/// Options of `cargo xtask vm`.
#[derive(clap::Args)]
pub(crate) struct VmArgs {
    #[command(flatten)]
    machine: MachineArgs,
    /// Seconds that the command may take (exit status 124 if it took longer)
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// A folder that the command may write into; it sees everything else too, but what it writes there is lost
    #[arg(long, value_name = "DIR")]
    rw: Vec<PathBuf>,
    /// The number of SoftRoCE devices: rxe0 at 10.7.0.1, rxe1 at 10.7.1.1 ...
    #[arg(long, default_value_t = DEFAULT_DEVICES, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=9))]
    devices: u8,
    /// A network between two further devices; may be given more than once
    #[arg(long, value_enum, value_name = "NETWORK")]
    network: Vec<Network>,
    /// Which RDMA libraries and tools the command finds
    #[arg(long, value_enum, default_value_t)]
    rdma_core: RdmaCore,
    /// Only download and build what a run needs
    #[arg(long)]
    prepare: bool,
    /// The command, after --
    #[arg(last = true, required_unless_present = "prepare", value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// How to run the guest's processors.
#[derive(Clone, Copy, Default, ValueEnum)]
enum AccelChoice {
    /// KVM if this user can use it, else emulation
    #[default]
    Auto,
    /// The host's kernel
    Kvm,
    /// Emulation: needs nothing, and is slower
    Tcg,
}

impl AccelChoice {
    fn accelerator(self) -> Accelerator {
        match self {
            Self::Auto if Accelerator::kvm_is_usable() => Accelerator::Kvm,
            Self::Kvm => Accelerator::Kvm,
            Self::Auto | Self::Tcg => Accelerator::Tcg,
        }
    }
}

/// Which RDMA libraries a guest's command finds.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum RdmaCore {
    /// The shared libraries and the tools of the release that vendor/ pins
    #[default]
    Pinned,
    /// Those that the host has installed
    System,
    /// None: those of the host are hidden
    None,
}

/// A command for the guest.
pub(crate) struct Job<'a> {
    pub(crate) command: &'a [OsString],
    pub(crate) folder: &'a Path,
    pub(crate) writable: &'a [PathBuf],
    pub(crate) devices: u8,
    pub(crate) networks: &'a [Network],
    pub(crate) rdma_core: RdmaCore,
    pub(crate) timeout: Option<Duration>,
    pub(crate) keep_stdout: bool,
}

/// What came of it.
pub(crate) struct Outcome {
    /// The command's exit status, or 124 or 125.
    pub(crate) status: u8,
    /// What it wrote to stdout, if that was to be kept.
    pub(crate) stdout: Vec<u8>,
}

/// Runs the command; returns its exit status.
pub(crate) fn run(args: &VmArgs) -> Result<u8> {
    if args.prepare {
        let prepared = prepare(&args.machine)?;
        if args.rdma_core == RdmaCore::Pinned {
            rdma_core::build()?;
        }
        say(format_args!("Linux {} is ready", prepared.release()));
        return Ok(0);
    }
    let job = Job {
        command: &args.command,
        folder: &std::env::current_dir()?,
        writable: &args.rw,
        devices: args.devices,
        networks: &args.network,
        rdma_core: args.rdma_core,
        timeout: args.timeout.map(Duration::from_secs),
        keep_stdout: false,
    };
    Ok(prepare(&args.machine)?.run(&job)?.status)
}

/// A virtual machine that has all it needs.
pub(crate) struct Prepared<'a> {
    args: &'a MachineArgs,
    kernel: Kernel,
}

/// Installs and downloads whatever is missing.
pub(crate) fn prepare(args: &MachineArgs) -> Result<Prepared<'_>> {
    host::need(&qemu::NEEDS)?;
    Ok(Prepared { args, kernel: kernel::prepare(args.kernel.as_deref())? })
}

impl Prepared<'_> {
    /// The kernel's release, as `uname -r` prints it.
    pub(crate) fn release(&self) -> &str {
        self.kernel.release.name()
    }

    /// The first number of the kernel's version.
    pub(crate) fn kernel_major(&self) -> u64 {
        self.kernel.release.major()
    }

    /// The networks that the kernel can do.
    pub(crate) fn networks(&self) -> &'static [Network] {
        Network::of_kernel(self.kernel_major())
    }

    /// Boots and runs a command.
    pub(crate) fn run(&self, job: &Job<'_>) -> Result<Outcome> {
        let environment = environment(job.rdma_core)?;
        let writable = qemu::writable(job.writable)?;
        let modules = self.kernel.modules();
        let script = Script {
            modules: &modules,
            writable: &writable,
            devices: job.devices,
            networks: job.networks,
            hide_libraries: job.rdma_core == RdmaCore::None,
            environment: &environment,
            folder: job.folder,
            command: job.command,
        };
        // Now and then the emulation of several processors trips over the kernel changing its own code at boot.
        const ATTEMPTS: usize = 3;
        let mut accelerator = self.args.accel.accelerator();
        let mut console = String::new();
        for _ in 0..ATTEMPTS {
            let machine = Machine {
                kernel: &self.kernel,
                accelerator,
                processors: self.args.smp,
                memory: &self.args.mem,
                boot_timeout: self.boot_timeout(accelerator),
                timeout: job.timeout,
                keep_stdout: job.keep_stdout,
            };
            say(format_args!("booting Linux {} ({})", self.release(), accelerator.name()));
            let boot = qemu::boot(&machine, &script)?;
            match self.judge(&boot, job)? {
                Some(status) => return Ok(Outcome { status, stdout: boot.stdout }),
                None => console = boot.console,
            }
            say("the guest stopped before the command started");
            if let AccelChoice::Auto = self.args.accel {
                accelerator = Accelerator::Tcg;
            }
        }
        bail!(
            "the guest did not boot in {ATTEMPTS} attempts; the last one said:\n{}",
            end_of(&console)
        )
    }

    /// How long a boot may take. KVM takes a second or two: if it was chosen only because it is there, and fails, its
    /// replacement should not have to wait long.
    fn boot_timeout(&self, accelerator: Accelerator) -> Duration {
        const KVM: u64 = 15;
        let seconds = match (self.args.accel, accelerator) {
            (AccelChoice::Auto, Accelerator::Kvm) => self.args.boot_timeout.min(KVM),
            _ => self.args.boot_timeout,
        };
        Duration::from_secs(seconds)
    }

    /// The exit status of a boot, or none if another attempt may help.
    fn judge(&self, boot: &Boot, job: &Job<'_>) -> Result<Option<u8>> {
        if self.args.dmesg || is_alarming(&boot.kernel_log) {
            say(format_args!(
                "the guest's kernel said while the command ran:\n{}",
                boot.kernel_log.trim_end()
            ));
        }
        Ok(match &boot.ending {
            Ending::Finished(status) => Some(*status),
            Ending::TimedOut => {
                let limit = job.timeout.unwrap_or_default().as_secs();
                say(format_args!(
                    "the command did not end within {limit} s\n{}",
                    end_of(&boot.console)
                ));
                Some(TIMED_OUT)
            }
            Ending::Died => {
                say(format_args!(
                    "the guest stopped while the command ran:\n{}",
                    end_of(&boot.console)
                ));
                Some(GUEST_DIED)
            }
            Ending::SetUpFailed(problem) => {
                bail!("setting up the guest failed: {problem}\n{}", end_of(&boot.console))
            }
            Ending::NeverStarted => None,
        })
    }
}

/// The environment for the guest's command: the caller's, with the RDMA libraries asked for.
fn environment(rdma_core: RdmaCore) -> Result<Vec<(OsString, OsString)>> {
    let mut variables: Vec<_> = std::env::vars_os().collect();
    if rdma_core == RdmaCore::Pinned {
        let built = rdma_core::build()?;
        put_first(&mut variables, "LD_LIBRARY_PATH", &built.libraries)?;
        put_first(&mut variables, "PATH", &built.programs)?;
    }
    variables.extend(peers::variables(rdma_core != RdmaCore::None));
    Ok(variables)
}

/// Puts a folder in front of those that a variable lists.
fn put_first(variables: &mut Vec<(OsString, OsString)>, name: &str, folder: &Path) -> Result<()> {
    let place = variables.iter_mut().find(|(variable, _)| variable == OsStr::new(name));
    match place {
        Some((_, value)) if !value.is_empty() => {
            *value = std::env::join_paths(
                [folder.to_owned()].into_iter().chain(std::env::split_paths(value)),
            )?;
        }
        Some((_, value)) => *value = folder.into(),
        None => variables.push((name.into(), folder.into())),
    }
    Ok(())
}

fn is_alarming(kernel_log: &str) -> bool {
    ["BUG", "WARNING", "Oops", "Call Trace"].iter().any(|sign| kernel_log.contains(sign))
}

/// The end of a console's text: a panic is long.
fn end_of(console: &str) -> String {
    const LINES: usize = 60;
    let lines: Vec<&str> =
        console.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_go_first() {
        let mut variables =
            vec![("PATH".into(), "/bin:/sbin".into()), ("EMPTY".into(), OsString::new())];
        for name in ["PATH", "EMPTY", "NEW"] {
            put_first(&mut variables, name, Path::new("/x")).unwrap();
        }
        let values: Vec<_> = variables.iter().map(|(_, value)| value.to_str().unwrap()).collect();
        assert_eq!(values, ["/x:/bin:/sbin", "/x", "/x"]);
    }

    #[test]
    fn alarms_of_the_kernel() {
        assert!(is_alarming("[ 1.0] BUG: unable to handle page fault"));
        assert!(!is_alarming("[ 1.0] rdma_rxe: loaded"));
    }
}
