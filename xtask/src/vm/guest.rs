//! The script that the guest runs: sets up the devices, runs the command, and says how it ended.
//!
//! Host and guest talk through a folder that both see, [`Control`], and through two serial ports for stdout and stderr.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::network::Network;

/// Where the guest sees the folder that it shares with the host.
const GUEST_CONTROL: &str = "/run/ibverbs-vm";

/// The files through which the guest tells the host what it does. They are all in one folder.
pub(crate) struct Control {
    folder: PathBuf,
}

impl Control {
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The script of [`Script::text`].
    pub(crate) fn script(&self) -> PathBuf {
        self.folder.join("guest")
    }

    /// Whether the devices are set up and the command has started.
    pub(crate) fn has_started(&self) -> bool {
        self.folder.join("started").exists()
    }

    /// Why setting up failed.
    pub(crate) fn failure(&self) -> Option<String> {
        self.read("failed").filter(|text| text.ends_with('\n')).map(|text| text.trim().to_owned())
    }

    /// The exit status of the command, once everything else has been written.
    pub(crate) fn exit_status(&self) -> Option<u8> {
        self.read("status")?.trim().parse().ok()
    }

    /// How many bytes the command wrote to `stdout` or `stderr`, if the guest could tell.
    pub(crate) fn bytes_written(&self, stream: &str) -> Option<u64> {
        bytes_copied(&self.read(&format!("{stream}.dd"))?)
    }

    /// The kernel's warnings and errors from the time the command ran.
    pub(crate) fn kernel_log(&self) -> String {
        self.read("dmesg").unwrap_or_default()
    }

    fn read(&self, name: &str) -> Option<String> {
        let bytes = std::fs::read(self.folder.join(name)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The count in what `dd` says at its end: `1234 bytes (1.2 kB, 1.2 KiB) copied, ...`.
fn bytes_copied(report: &str) -> Option<u64> {
    report.lines().rev().find_map(|line| line.split_once(" byte")?.0.parse().ok())
}

/// A host folder that the guest may write into.
pub(crate) struct Writable {
    /// What QEMU calls it.
    pub(crate) tag: String,
    /// Its path, the same on both sides.
    pub(crate) path: PathBuf,
}

/// What a run of the guest does.
pub(crate) struct Script<'a> {
    /// What `/lib/modules/RELEASE` leads to.
    pub(crate) modules: &'a Path,
    pub(crate) writable: &'a [Writable],
    /// The number of SoftRoCE devices, at most 9.
    pub(crate) devices: u8,
    /// The networks that join further devices.
    pub(crate) networks: &'a [Network],
    /// Hide the RDMA libraries of the host.
    pub(crate) hide_libraries: bool,
    pub(crate) environment: &'a [(OsString, OsString)],
    pub(crate) folder: &'a Path,
    pub(crate) command: &'a [OsString],
}

/// Sets the guest up as far as every run needs it.
const SET_UP: &str = r#"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd /
power_off() { echo o > /proc/sysrq-trigger; sleep 60; }
fail() { echo "$*" > $control/failed; power_off; }

mkdir -p /dev/shm /dev/pts /lib/modules
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
ln -sfn "$modules" /lib/modules/$(uname -r)
hostname ibverbs-vm
ulimit -l unlimited
ulimit -n 65536
ulimit -c 0
ip link set lo up

add_device() {
  [ -e /sys/class/net/dummy$1 ] || ip link add dummy$1 type dummy || return
  ip addr add 10.7.$1.1/24 dev dummy$1 && ip link set dummy$1 up && rdma link add rxe$1 type rxe netdev dummy$1 &&
    ip -6 addr add fd07:$1::1/64 dev dummy$1 nodad
}
# Where a device has the GID of an IPv4 address. The address appears in the table a moment after the device.
gid_index() {
  local n file
  for n in $(seq 100); do
    for file in $(grep -l ffff:$2 /sys/class/infiniband/$1/ports/1/gids/* 2>/dev/null); do
      echo ${file##*/}
      return
    done
    sleep .05
  done
  return 1
}
n=0
while [ $n -lt $devices ]; do
  problem=$(add_device $n 2>&1) || fail "cannot add SoftRoCE device rxe$n: $problem"
  gid_index rxe$n 0a07:0${n}01 > /dev/null || fail "rxe$n got no GID for its IPv4 address"
  n=$((n + 1))
done
index=$(gid_index rxe0 0a07:0001)
link_local=$(ip -o -6 addr show dev dummy0 scope link | sed 's/.*inet6 //; s/[/].*//')
"#;

/// What the command's environment tells it about the devices.
const EXPORTS: &str = "
export RDMA_DEVICE=rxe0 RDMA_GID_INDEX=$index RDMA_ADDR=10.7.0.1 IBVERBS_TEST_DEVICE=rxe0
export IBVERBS_TEST_ADDR=10.7.0.1 IBVERBS_TEST_ADDR6=fd07::1 IBVERBS_TEST_LINK_LOCAL=$link_local%dummy0
";

/// Removes the RDMA libraries from the guest's view of the host.
const HIDE_LIBRARIES: &str = r#"
rm -f $(ldconfig -p | sed -n 's/^[[:space:]]*lib\(ibverbs\|rdmacm\|efa\|mlx[45]\|mana\|hns\)\.so.* => //p')
"#;

/// Relays what the command writes. `dd` counts, so that the host knows when it has everything.
const RELAY: &str = r#"
mkfifo /run/stdout /run/stderr
LC_ALL=C dd bs=64k if=/run/stdout of=/dev/vport0p1 2> $control/stdout.dd & out=$!
LC_ALL=C dd bs=64k if=/run/stderr of=/dev/vport0p2 2> $control/stderr.dd & err=$!
dmesg -C
: > $control/started
"#;

/// Tells how it ended. The status is written last, under another name first: once it is there, everything is.
const FINISH: &str = r#"
dmesg -l emerg,alert,crit,err,warn > $control/dmesg
# Something that the command left running may hold the pipes open: then what came so far has to do.
for n in $(seq 40); do
  kill -0 $out 2>/dev/null || kill -0 $err 2>/dev/null || break
  sleep .05
done
kill -USR1 $out $err 2>/dev/null && sleep .2
sync
echo $status > $control/status.new
mv $control/status.new $control/status
sleep 60
power_off
"#;

impl Script<'_> {
    /// The script, for bash.
    pub(crate) fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let mut add = |part: &[u8]| text.extend_from_slice(part);
        add(format!("control={GUEST_CONTROL}\ndevices={}\nmodules=", self.devices).as_bytes());
        add(&quoted(self.modules.as_os_str()));
        add(SET_UP.as_bytes());
        add(Network::set_up(self.networks).as_bytes());
        if self.hide_libraries {
            add(HIDE_LIBRARIES.as_bytes());
        }
        for folder in self.writable {
            let path = quoted(folder.path.as_os_str());
            let options = "trans=virtio,version=9p2000.L,msize=512000,cache=mmap";
            add(format!("mount -t 9p -o {options} {} ", folder.tag).as_bytes());
            add(&path);
            add(b" || fail cannot mount ");
            add(&path);
            add(b"\n");
        }
        add(RELAY.as_bytes());
        add(b"(\n");
        for (name, value) in self.environment.iter().filter(|(name, _)| can_be_exported(name)) {
            add(b"export ");
            add(name.as_bytes());
            add(b"=");
            add(&quoted(value));
            add(b"\n");
        }
        add(EXPORTS.as_bytes());
        add(b"cd ");
        add(&quoted(self.folder.as_os_str()));
        add(b" && exec");
        for word in self.command {
            add(b" ");
            add(&quoted(word));
        }
        add(b"\n) </dev/null >/run/stdout 2>/run/stderr\nstatus=$?\n");
        add(FINISH.as_bytes());
        text
    }
}

/// Quotes a word for the shell, whatever bytes it is made of.
pub(crate) fn quoted(word: &OsStr) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(br"'\''"),
            other => quoted.push(other),
        }
    }
    quoted.push(b'\'');
    quoted
}

/// Whether the shell can export a variable of this name: functions and the like that the environment may hold are
/// no names, and some variables are the shell's own.
fn can_be_exported(name: &OsStr) -> bool {
    const OF_THE_SHELL: [&str; 6] =
        ["BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"];
    let Some(name) = name.to_str() else { return false };
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name && !OF_THE_SHELL.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn quoting_survives_the_shell() {
        for word in ["", "plain", "two words", "it's", "''", "$HOME `id` \\ \"x\" !\n*"] {
            let mut script = b"printf %s ".to_vec();
            script.extend(quoted(OsStr::new(word)));
            let out =
                Command::new("bash").arg("-c").arg(OsStr::from_bytes(&script)).output().unwrap();
            assert_eq!(out.stdout, word.as_bytes());
        }
        assert_eq!(quoted(OsStr::from_bytes(b"\xff")), b"'\xff'");
    }

    #[test]
    fn only_names_are_exported() {
        for name in ["PATH", "_x1", "LC_ALL"] {
            assert!(can_be_exported(OsStr::new(name)), "{name}");
        }
        for name in ["", "1x", "BASH_FUNC_f%%", "a-b", "UID", "SHELLOPTS"] {
            assert!(!can_be_exported(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn what_dd_reports() {
        let gnu = "0+2 records in\n0+2 records out\n1234 bytes (1.2 kB, 1.2 KiB) copied, 0.1 s, 12 kB/s\n";
        assert_eq!(bytes_copied(gnu), Some(1234));
        // Asked in between, and again at the end.
        assert_eq!(bytes_copied(&format!("5 bytes copied\n{gnu}")), Some(1234));
        assert_eq!(bytes_copied("1 byte copied, 0.1 s"), Some(1));
        assert_eq!(bytes_copied("dd: no such device\n"), None);
    }

    #[test]
    fn the_script_is_one_that_bash_accepts() {
        let script = Script {
            modules: Path::new("/cache dir/modules"),
            writable: &[Writable { tag: "writable0".into(), path: "/it's".into() }],
            devices: 2,
            networks: &[Network::Wire, Network::Namespaces],
            hide_libraries: true,
            environment: &[("A".into(), "1 2".into()), ("BAD-NAME".into(), "x".into())],
            folder: Path::new("/tmp"),
            command: &["sh".into(), "-c".into(), "exit 3".into()],
        };
        let text = String::from_utf8(script.text()).unwrap();
        assert!(text.contains("export A='1 2'\n") && !text.contains("BAD-NAME"));
        assert!(text.contains("exec 'sh' '-c' 'exit 3'\n"));
        let check = Command::new("bash").args(["-n", "-c", &text]).output().unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    }

    #[test]
    fn the_control_folder_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::in_folder(folder.path());
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert!(
            !control.has_started()
                && control.exit_status().is_none()
                && control.failure().is_none()
        );
        write("started", "");
        write("failed", "half a li");
        assert!(control.has_started() && control.failure().is_none());
        write("failed", "no rxe\n");
        write("status", "7\n");
        write("stdout.dd", "9 bytes copied\n");
        assert_eq!(control.failure().unwrap(), "no rxe");
        assert_eq!(control.exit_status(), Some(7));
        assert_eq!(control.bytes_written("stdout"), Some(9));
        assert_eq!(control.bytes_written("stderr"), None);
    }
}
