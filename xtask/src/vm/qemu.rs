//! One boot of the guest in QEMU.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::guest::{Control, Script, Writable};
use super::kernel::Kernel;
use super::relay::Relay;
use super::scratch;
use crate::host::{self, Need};
use crate::progress::say;

/// What running a guest takes. `setpriv` and `bash` are on every Debian and Ubuntu.
pub(crate) const NEEDS: [Need; 3] = [
    Need::executable("qemu-system-x86_64", "qemu-system-x86"),
    Need::executable("rdma", "iproute2"),
    Need::executable("setpriv", "util-linux"),
];

/// Boot options. The guest is thrown away and nobody attacks it: what only protects is switched off, as is what changes
/// code at run time, which QEMU's emulation is slow at.
const KERNEL_OPTIONS: &str =
    "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no5lvl audit=0 apparmor=0 cryptomgr.notests";

/// How the guest's processors are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// The host's processor, by its kernel.
    Kvm,
    /// QEMU's own emulation.
    Tcg,
}

impl Accelerator {
    /// Whether the host's kernel lets this user run guests.
    pub(crate) fn kvm_is_usable() -> bool {
        let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        has_virtualization(&processors)
            && OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
    }

    /// What it is called in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Tcg => "QEMU's emulation",
        }
    }

    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }
}

/// Whether `/proc/cpuinfo` tells of a processor that can run guests. Some virtual machines have a `/dev/kvm` without
/// one, in which ordinary guests hang.
fn has_virtualization(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|flags| flags.split_whitespace().any(|flag| matches!(flag, "vmx" | "svm")))
}

/// The virtual machine.
pub(crate) struct Machine<'a> {
    pub(crate) kernel: &'a Kernel,
    pub(crate) accelerator: Accelerator,
    pub(crate) processors: u16,
    /// In QEMU's notation: `2G`.
    pub(crate) memory: &'a str,
    /// How long setting up may take, until the command starts.
    pub(crate) boot_timeout: Duration,
    /// How long the command may take.
    pub(crate) timeout: Option<Duration>,
    /// Keep a copy of what the command writes to stdout.
    pub(crate) keep_stdout: bool,
}

/// How a boot ended.
pub(crate) enum Ending {
    /// The command ended with this exit status.
    Finished(u8),
    /// The command's time was up.
    TimedOut,
    /// Setting up failed for a reason that the guest knows.
    SetUpFailed(String),
    /// The guest stopped, or hung, before the command started.
    NeverStarted,
    /// The guest stopped while the command ran.
    Died,
}

/// What a boot left.
pub(crate) struct Boot {
    pub(crate) ending: Ending,
    /// What the command wrote to stdout, if it was to be kept.
    pub(crate) stdout: Vec<u8>,
    /// The kernel's warnings and errors while the command ran.
    pub(crate) kernel_log: String,
    /// What the guest's console and QEMU itself said: tells why it stopped.
    pub(crate) console: String,
}

/// Boots the machine once and runs the script in it.
pub(crate) fn boot(machine: &Machine<'_>, script: &Script<'_>) -> Result<Boot> {
    let folder = scratch::folder()?;
    let shared = folder.path().join("control");
    std::fs::create_dir(&shared)?;
    let control = Control::in_folder(&shared);
    std::fs::write(control.script(), script.text())?;
    let stdout =
        Relay::start(folder.path().join("stdout"), Box::new(io::stdout()), machine.keep_stdout)?;
    let stderr = Relay::start(folder.path().join("stderr"), Box::new(io::stderr()), false)?;
    let (console, log) = (folder.path().join("console"), folder.path().join("qemu"));

    let mut guest = Guest(
        // If this program is killed, the guest must not live on.
        host::command("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(host::find("qemu-system-x86_64").context("QEMU went away")?)
            .args(arguments(machine, &console))
            .args(stream_arguments("stdout", 1, stdout.socket()))
            .args(stream_arguments("stderr", 2, stderr.socket()))
            .args(folder_arguments("root", Path::new("/"), true))
            .args(folder_arguments("control", control.folder(), false))
            .args(
                script
                    .writable
                    .iter()
                    .flat_map(|Writable { tag, path }| folder_arguments(tag, path, false)),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot start QEMU")?,
    );
    let ending = watch(&mut guest, machine, &control, [&stdout, &stderr])?;
    drop(guest);
    let stdout = stdout.finish();
    stderr.finish();
    let text = |file: &Path| {
        String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
    };
    Ok(Boot {
        ending,
        stdout,
        kernel_log: control.kernel_log(),
        console: format!("{}{}", text(&console), text(&log)),
    })
}

/// The running QEMU; killed when dropped.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until the command has ended, or never will.
fn watch(
    guest: &mut Guest,
    machine: &Machine<'_>,
    control: &Control,
    relays: [&Relay; 2],
) -> Result<Ending> {
    const PAUSE: Duration = Duration::from_millis(10);
    let begin = Instant::now();
    let mut started: Option<Instant> = None;
    loop {
        // Asked first: what the guest wrote before it ended is there when the files are read below.
        let is_gone = guest.0.try_wait()?.is_some();
        if started.is_none() && control.has_started() {
            say(format_args!("booted in {:.1} s", begin.elapsed().as_secs_f64()));
            started = Some(Instant::now());
        }
        if let Some(status) = control.exit_status() {
            wait_for_output(control, relays);
            return Ok(Ending::Finished(status));
        }
        if let Some(problem) = control.failure() {
            return Ok(Ending::SetUpFailed(problem));
        }
        match started {
            Some(_) if is_gone => return Ok(Ending::Died),
            Some(at) if machine.timeout.is_some_and(|timeout| at.elapsed() > timeout) => {
                return Ok(Ending::TimedOut)
            }
            None if is_gone || begin.elapsed() > machine.boot_timeout => {
                return Ok(Ending::NeverStarted)
            }
            _ => std::thread::sleep(PAUSE),
        }
    }
}

/// Waits for what the command wrote and QEMU has not handed over yet.
fn wait_for_output(control: &Control, relays: [&Relay; 2]) {
    const PATIENCE: Duration = Duration::from_secs(10);
    let begin = Instant::now();
    let is_missing = |(stream, relay): (&str, &Relay)| {
        control.bytes_written(stream).is_some_and(|written| relay.received() < written)
    };
    while begin.elapsed() < PATIENCE && ["stdout", "stderr"].into_iter().zip(relays).any(is_missing)
    {
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn arguments(machine: &Machine<'_>, console: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    let mut add = |word: &dyn AsRef<OsStr>| words.push(word.as_ref().to_owned());
    for word in [
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-net",
        "none",
        "-machine",
        "q35",
    ] {
        add(&word);
    }
    for word in machine.accelerator.arguments() {
        add(&word);
    }
    add(&"-smp");
    add(&machine.processors.to_string());
    add(&"-m");
    add(&machine.memory);
    add(&"-kernel");
    add(&machine.kernel.image());
    add(&"-initrd");
    add(&machine.kernel.initrd());
    add(&"-append");
    add(&KERNEL_OPTIONS);
    add(&"-serial");
    add(&option("file:", console));
    add(&"-device");
    add(&"virtio-serial-pci");
    words
}

/// A serial port of the guest, connected to a socket.
fn stream_arguments(name: &str, number: u8, socket: &Path) -> [OsString; 4] {
    [
        "-chardev".into(),
        option(&format!("socket,id={name},path="), socket),
        "-device".into(),
        format!("virtserialport,chardev={name},nr={number}").into(),
    ]
}

/// A folder of the host that the guest can mount.
fn folder_arguments(tag: &str, path: &Path, read_only: bool) -> [OsString; 4] {
    let mode = if read_only { ",readonly=on" } else { "" };
    // Without a security model of its own, QEMU does in the host's files what its user may do, and no more.
    let settings = format!("local,id={tag},security_model=none,multidevs=remap{mode},path=");
    [
        "-fsdev".into(),
        option(&settings, path),
        "-device".into(),
        format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}").into(),
    ]
}

/// An option that ends in a path: commas in it are doubled, since a single one would start the next option.
fn option(settings: &str, path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = settings.as_bytes().to_vec();
    for &byte in path.as_os_str().as_bytes() {
        bytes.push(byte);
        if byte == b',' {
            bytes.push(byte);
        }
    }
    OsString::from_vec(bytes)
}

/// The folders that the guest may write into, by their real paths.
pub(crate) fn writable(folders: &[PathBuf]) -> Result<Vec<Writable>> {
    let numbered = folders.iter().enumerate();
    numbered
        .map(|(number, folder)| {
            let path = folder
                .canonicalize()
                .with_context(|| format!("the guest cannot write into {}", folder.display()))?;
            Ok(Writable { tag: format!("writable{number}"), path })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_that_can_run_guests() {
        assert!(has_virtualization("processor : 0\nflags\t\t: fpu vmx sse2\nbugs : x\n"));
        assert!(has_virtualization("flags : svm\n"));
        assert!(!has_virtualization("flags : fpu svm_lock\nvmx flags : vnmi\n"));
        assert!(!has_virtualization(""));
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        let [_, fsdev, _, device] = folder_arguments("root", Path::new("/a,b"), true);
        assert_eq!(
            fsdev,
            "local,id=root,security_model=none,multidevs=remap,readonly=on,path=/a,,b"
        );
        assert_eq!(device, "virtio-9p-pci,fsdev=root,mount_tag=root");
        let [_, chardev, ..] = stream_arguments("stdout", 1, Path::new("/s"));
        assert_eq!(chardev, "socket,id=stdout,path=/s");
    }

    #[test]
    fn writable_folders_are_real_ones() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).unwrap();
        let found = writable(&[link]).unwrap();
        assert_eq!(found[0].path, folder.path().canonicalize().unwrap());
        assert_eq!(found[0].tag, "writable0");
        assert!(writable(&[folder.path().join("missing")]).is_err());
    }
}
