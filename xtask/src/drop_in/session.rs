//! Running a program, or a server and its client, with the drop-in library in the place of rdma-core's.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv6Addr, TcpListener};
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

/// A program that runs; it does not outlive this.
struct Running {
    child: Child,
    name: String,
    output: PathBuf,
    end: Instant,
}

impl Place<'_> {
    /// Runs one program to its end; returns what it wrote.
    pub(super) fn run(&self, words: &[String]) -> Result<String> {
        self.start("program", words)?.succeed()
    }

    /// Runs a server, and a client when it listens on the TCP port; returns what each wrote.
    pub(super) fn run_pair(
        &self,
        server: &[String],
        client: &[String],
        port: u16,
    ) -> Result<[String; 2]> {
        let mut server = self.start("server", server)?;
        while !is_listened_on(port)? {
            if server.has_ended()?.is_some() {
                let output = server.succeed()?;
                bail!("the server did not wait for the client:\n{output}");
            }
            std::thread::sleep(TICK);
        }
        let client = self.start("client", client)?.succeed();
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

    fn start(&self, role: &str, words: &[String]) -> Result<Running> {
        let (program, arguments) = words.split_first().context("there is no program")?;
        let output = self.folder.join(role);
        let file =
            File::create(&output).with_context(|| format!("cannot create {}", output.display()))?;
        let path = self.programs.map_or(PathBuf::from(program), |folder| folder.join(program));
        let child = Command::new(path)
            .args(arguments)
            .env("LD_LIBRARY_PATH", self.libraries)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        let name = format!("the {role} `{}`", words.join(" "));
        Ok(Running { child, name, output, end: Instant::now() + self.limit })
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

    /// What it wrote, when it has ended with success.
    fn succeed(mut self) -> Result<String> {
        loop {
            match self.has_ended()? {
                Some(status) if status.success() => return Ok(self.wrote()),
                Some(status) => bail!("{} failed ({status}):\n{}", self.name, self.wrote()),
                None => std::thread::sleep(TICK),
            }
        }
    }

    fn wrote(&self) -> String {
        fs::read(&self.output).map_or_else(
            |error| format!("(cannot be read: {error})"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
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

/// Whether somebody listens on a TCP port, of any address.
fn is_listened_on(port: u16) -> Result<bool> {
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) if listens(&text, port) => return Ok(true),
            Ok(_) => {}
            // There is no IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {table}")),
        }
    }
    Ok(false)
}

/// Whether a line of the kernel's table is of this port and in the state of listening.
fn listens(table: &str, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let port = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(&port)) && words.nth(1) == Some(LISTEN)
    })
}

#[cfg(test)]
mod tests {
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
    fn a_client_starts_when_its_server_listens() {
        let port = free_port().unwrap();
        assert!(!is_listened_on(port).unwrap());
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap();
        assert!(is_listened_on(port).unwrap());
        let pair = |server, client| {
            with_limit(60, |place| place.run_pair(&words(server), &words(client), port))
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
    fn only_listeners_count() {
        let table = "  sl  local_address rem_address   st tx_queue\n   0: 00000000:4853 00000000:0000 0A 0:0\n   \
             1: 0100007F:1F90 0100007F:4854 01 0:0\n";
        assert!(listens(table, 0x4853));
        assert!(!listens(table, 0x1f90) && !listens(table, 0x4854));
    }
}
