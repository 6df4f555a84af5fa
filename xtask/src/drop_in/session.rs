//! Running a program, or a server and its client, with the drop-in library in the place of rdma-core's.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};

/// How often it is looked whether something has happened.
const TICK: Duration = Duration::from_millis(10);

/// Where programs run: with this library, and with a folder for what they write.
pub(super) struct Place<'a> {
    pub(super) libraries: &'a Path,
    /// Where the programs are, if not where all are.
    pub(super) programs: Option<&'a Path>,
    pub(super) folder: &'a Path,
    /// How long a program may take.
    pub(super) limit: Duration,
}

/// How a server waits for its client.
pub(super) enum Waiting {
    /// It listens on this TCP port.
    Tcp(u16),
    /// It listens by the connection manager, with a device of this address.
    Device(Ipv4Addr),
}

/// A program that runs; it does not outlive this.
struct Running {
    child: Child,
    name: String,
    output: [PathBuf; 2],
    end: Instant,
    /// How often in a row it was seen waiting.
    seen_waiting: u32,
}

impl Place<'_> {
    /// Runs one program to its end; returns what it wrote.
    pub(super) fn run(&self, words: &[String]) -> Result<String> {
        self.start("program", words, None)?.succeed()
    }

    /// Runs a server, and a client when it waits; returns what each wrote.
    pub(super) fn run_pair(
        &self,
        server: &[String],
        client: &[String],
        waiting: &Waiting,
    ) -> Result<[String; 2]> {
        let addr = match waiting {
            Waiting::Tcp(_) => None,
            Waiting::Device(addr) => Some(*addr),
        };
        let mut server = self.start("server", server, addr)?;
        while !server.is_waiting(waiting)? {
            if server.has_ended()?.is_some() {
                let output = server.succeed()?;
                bail!("the server did not wait for the client:\n{output}");
            }
            std::thread::sleep(TICK);
        }
        let client = self.start("client", client, None)?.succeed();
        if client.is_err() {
            // It may wait for ever for a client that has failed; what it has to say may be why.
            server.end = server.end.min(Instant::now() + Duration::from_secs(2));
        }
        let server = server.succeed();
        match (server, client) {
            (Ok(server), Ok(client)) => Ok([server, client]),
            (Err(server), Err(client)) => bail!("{client:#}\n{server:#}"),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    /// Starts a program, with a device of this address, or of one that is free.
    fn start(&self, role: &str, words: &[String], addr: Option<Ipv4Addr>) -> Result<Running> {
        let (program, arguments) = words.split_first().context("there is no program")?;
        // Each by itself: what is buffered would come in the middle of the other.
        let output =
            ["stdout", "stderr"].map(|stream| self.folder.join(format!("{role}.{stream}")));
        let open = |path: &PathBuf| {
            File::create(path).with_context(|| format!("cannot create {}", path.display()))
        };
        let path = self.programs.map_or(PathBuf::from(program), |folder| folder.join(program));
        let mut command = Command::new(path);
        if let Some(addr) = addr {
            command.env("IBVERBS_SOFT_ADDR", addr.to_string());
        }
        let child = command
            .args(arguments)
            .env("LD_LIBRARY_PATH", self.libraries)
            .stdin(Stdio::null())
            .stdout(open(&output[0])?)
            .stderr(open(&output[1])?)
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        let name = format!("the {role} `{}`", words.join(" "));
        let end = Instant::now() + self.limit;
        Ok(Running { child, name, output, end, seen_waiting: 0 })
    }
}

impl Running {
    /// How it ended, if it has; ends it if its time is up.
    fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        if status.is_none() && Instant::now() > self.end {
            self.child.kill()?;
            bail!("{} did not end in its time:\n{}", self.name, self.wrote());
        }
        Ok(status)
    }

    /// Whether it waits for a client. Of the connection manager nobody outside knows who listens; but a program that has its
    /// device, and has nothing to do for a while, waits for an event.
    fn is_waiting(&mut self, waiting: &Waiting) -> Result<bool> {
        const A_WHILE: u32 = 20;
        match waiting {
            Waiting::Tcp(port) => is_in_table("tcp", LISTENING, &format!(":{port:04X}")),
            Waiting::Device(addr) => {
                let number = u32::from_ne_bytes(addr.octets());
                let has_device =
                    is_in_table("udp", UNCONNECTED, &format!("{number:08X}:{ROCE_PORT:04X}"))?;
                let is_idle = has_device && sleeps(self.child.id())?;
                self.seen_waiting = if is_idle { self.seen_waiting + 1 } else { 0 };
                Ok(self.seen_waiting >= A_WHILE)
            }
        }
    }

    /// What it wrote, when it has ended with success.
    ///
    /// `rping` of rdma-core 44 destroys its event channel when all is done, while a thread of it may be about to read it: that this
    /// fails then, and the program with it, means nothing.
    fn succeed(mut self) -> Result<String> {
        const CLOSED: &str = "rdma_get_cm_event: Bad file descriptor\n";
        let is_done = |status: ExitStatus, wrote: &str| {
            status.success() || status.code() == Some(255) && wrote.ends_with(CLOSED)
        };
        loop {
            match self.has_ended()? {
                Some(status) if is_done(status, &self.wrote()) => return Ok(self.wrote()),
                Some(status) => bail!("{} failed ({status}):\n{}", self.name, self.wrote()),
                None => std::thread::sleep(TICK),
            }
        }
    }

    fn wrote(&self) -> String {
        let read = |path: &PathBuf| match fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("({} cannot be read: {error})", path.display()),
        };
        self.output.each_ref().map(read).concat()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended, and then there is nothing to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A TCP port that nobody listens on.
pub(super) fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))?.local_addr()?.port())
}

/// An address of a device of its own for a server that has this port.
pub(super) fn addr_for(port: u16) -> Ipv4Addr {
    let [high, low] = port.to_be_bytes();
    Ipv4Addr::new(127, 44, high, low)
}

/// A multicast group for a server that has this port.
pub(super) fn group_for(port: u16) -> Ipv4Addr {
    let [high, low] = port.to_be_bytes();
    Ipv4Addr::new(239, 44, high, low)
}

/// The states of sockets, as the kernel's tables have them.
const LISTENING: &str = "0A";
const UNCONNECTED: &str = "07";

/// The port of RoCE version 2.
const ROCE_PORT: u16 = 4791;

/// Whether the kernel's table of this protocol, or the one for IPv6, has a socket in this state whose address ends so.
fn is_in_table(protocol: &str, state: &str, address: &str) -> Result<bool> {
    for table in [format!("/proc/net/{protocol}"), format!("/proc/net/{protocol}6")] {
        match fs::read_to_string(&table) {
            Ok(text) if has_socket(&text, state, address) => return Ok(true),
            Ok(_) => {}
            // There is no IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {table}")),
        }
    }
    Ok(false)
}

fn has_socket(table: &str, state: &str, address: &str) -> bool {
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(address)) && words.nth(1) == Some(state)
    })
}

/// Whether the first thread of a process sleeps.
fn sleeps(process: u32) -> Result<bool> {
    let path = format!("/proc/{process}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name, which may have anything in it, is in brackets.
    Ok(text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S')))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn words(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(String::from).into()
    }

    /// Calls `run` with a place where programs may take so long.
    fn with_limit<T>(seconds: u64, run: impl FnOnce(&Place<'_>) -> T) -> T {
        let folder = tempfile::tempdir().unwrap();
        let limit = Duration::from_secs(seconds);
        let libraries = Path::new("/the/library");
        run(&Place { libraries, programs: None, folder: folder.path(), limit })
    }

    #[test]
    fn a_program_gets_the_library_and_tells_what_it_wrote() {
        let wrote =
            with_limit(60, |place| place.run(&words("echo $LD_LIBRARY_PATH; echo two >&2")));
        assert_eq!(wrote.unwrap(), "/the/library\ntwo\n");
    }

    #[test]
    fn a_program_of_a_folder_is_not_looked_for_elsewhere() {
        let elsewhere = |place: &Place<'_>| {
            let programs = Some(Path::new("/nowhere"));
            Place { programs, ..*place }.run(&words("exit 0"))
        };
        assert!(with_limit(60, elsewhere).is_err());
    }

    #[test]
    fn failures_are_told_with_what_was_written() {
        let failure = |seconds, script| {
            with_limit(seconds, |place| place.run(&words(script))).unwrap_err().to_string()
        };
        let failed = failure(60, "echo why; exit 3");
        assert!(failed.contains("exit status: 3") && failed.contains("why"), "{failed}");
        let late = failure(1, "echo waiting; exec sleep 100");
        assert!(late.contains("in its time") && late.contains("waiting"), "{late}");
    }

    #[test]
    fn a_channel_that_is_closed_too_early_is_no_failure() {
        let closed = "echo 'rdma_get_cm_event: Bad file descriptor' >&2; exit";
        let ended = |code| with_limit(60, |place| place.run(&words(&format!("{closed} {code}"))));
        assert!(ended(255).is_ok());
        assert!(ended(1).is_err());
        assert!(with_limit(60, |place| place.run(&words("exit 255"))).is_err());
    }

    #[test]
    fn a_client_starts_when_its_server_listens() {
        let port = free_port().unwrap();
        let listens = || is_in_table("tcp", LISTENING, &format!(":{port:04X}")).unwrap();
        assert!(!listens());
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
        assert!(listens());
        let pair = |server, client| {
            let run = |place: &Place<'_>| {
                place.run_pair(&words(server), &words(client), &Waiting::Tcp(port))
            };
            with_limit(60, run)
        };
        assert_eq!(pair("sleep .1; echo a", "echo b").unwrap(), ["a\n", "b\n"]);
        let refused = pair("echo server; exec sleep 100", "echo client; exit 1").unwrap_err();
        let refused = format!("{refused:#}");
        assert!(refused.contains("server\n") && refused.contains("client\n"), "{refused}");
        drop(listener);
        assert!(pair("exit 1", "exit 0").is_err());
        assert!(pair("exit 0", "exit 0").is_err());
    }

    #[test]
    fn a_client_of_the_connection_manager_starts_when_its_server_idles() {
        // Nobody has the port of RoCE at this address, or the test would hold for nothing.
        let addr = addr_for(free_port().unwrap());
        let socket = UdpSocket::bind((addr, ROCE_PORT)).unwrap();
        let pair = |server| {
            let run = |place: &Place<'_>| {
                place.run_pair(&words(server), &words("echo b"), &Waiting::Device(addr))
            };
            with_limit(2, run)
        };
        let outputs = pair("echo $IBVERBS_SOFT_ADDR; sleep 1").unwrap();
        assert_eq!(outputs, [format!("{addr}\n"), "b\n".into()]);
        assert!(pair("while :; do :; done").is_err());
        drop(socket);
        assert!(pair("exec sleep 100").is_err());
    }

    #[test]
    fn a_socket_is_found_by_its_address_and_state() {
        let table = "  sl  local_address rem_address   st tx_queue\n   0: 00000000:4853 00000000:0000 0A 0:0\n   \
             1: 0100007F:1F90 0100007F:4854 01 0:0\n";
        assert!(has_socket(table, LISTENING, ":4853"));
        assert!(!has_socket(table, LISTENING, ":1F90") && !has_socket(table, LISTENING, ":4854"));
        assert!(has_socket(table, "01", "0100007F:1F90"));
    }
}
