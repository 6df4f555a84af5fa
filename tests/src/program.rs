//! Programs that nobody of this project wrote, as peers: those that come with rdma-core.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ibverbs::rdmacm::{CmEventType, DatagramRefusal, RejectReason};
use ibverbs::{Error, Result};

use crate::device::is_soft;
use crate::told::{told, Route};
use crate::wait::DEADLINE;

/// A program that the environment names.
#[derive(Clone, Debug)]
pub struct Program {
    path: String,
}

impl Program {
    /// The `rping` of librdmacm, which has the server read and write the client's memory.
    pub fn rping() -> Option<Program> {
        told("IBVERBS_TEST_RPING").map(|path| Program { path })
    }

    /// The `ucmatose` of librdmacm, which has many connections.
    pub fn ucmatose() -> Option<Program> {
        told("IBVERBS_TEST_UCMATOSE").map(|path| Program { path })
    }

    /// The `udaddy` of librdmacm, which sends datagrams.
    pub fn udaddy() -> Option<Program> {
        told("IBVERBS_TEST_UDADDY").map(|path| Program { path })
    }

    /// Starts it at an end of the route, with options as one would type them.
    #[track_caller]
    pub fn start(&self, route: &Route, options: &str) -> Running {
        // The programs keep what they print until they end, and a program that is killed would say nothing.
        let mut command = Command::new("stdbuf");
        command.arg("-oL").arg(&self.path).args(options.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(device) = route.device {
            command.env("IBVERBS_SOFT_ADDR", device.to_string());
        }
        // SAFETY: between fork(2) and execve(2), the closure only calls `prctl` and reads `errno`, which
        // signal handlers may do as well (prctl(2) is a mere system call, and takes no lock), and allocates nothing.
        unsafe { command.pre_exec(die_with_parent) };
        let mut child = command.spawn().expect("stdbuf cannot be started");
        let stdout = collect(child.stdout.take().expect("it is piped"));
        let stderr = collect(child.stderr.take().expect("it is piped"));
        let name = format!("{} {options}", self.path);
        Running { name, child, stdout: Some(stdout), stderr: Some(stderr) }
    }
}

/// Has the kernel kill this process when the thread ends that has started it.
fn die_with_parent() -> std::io::Result<()> {
    // SAFETY: this option takes the number of a signal, and no pointer (PR_SET_PDEATHSIG(2const)).
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Reads all that comes, so that the program never waits for somebody to read it.
fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is kept.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// A program that runs. It is killed when this is dropped, and when the thread ends that has started it. If the test fails,
/// what it said is shown.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

/// How a program has ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status; `None` if it was killed.
    pub code: Option<i32>,
    /// What it has printed.
    pub stdout: String,
    /// What it has printed to the standard error.
    pub stderr: String,
}

impl Ended {
    /// Checks that the program has succeeded.
    #[track_caller]
    pub fn assert_success(&self) {
        assert_eq!(self.code, Some(0), "{self:#?}");
    }
}

impl Running {
    /// Does `attempt` again until the program listens.
    #[track_caller]
    pub fn once_listening<T>(&mut self, mut attempt: impl FnMut() -> Result<T>) -> T {
        let end = Instant::now() + DEADLINE;
        loop {
            match attempt() {
                Ok(done) => return done,
                Err(error) => {
                    assert!(is_nobody(&error), "{error}");
                    assert!(Instant::now() < end, "{}: it does not listen", self.name);
                    assert!(!self.has_ended(), "{}: it has ended", self.name);
                }
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the program ends by itself.
    #[track_caller]
    pub fn finish(mut self) -> Ended {
        let end = Instant::now() + DEADLINE;
        while !self.has_ended() {
            assert!(Instant::now() < end, "{}: it does not end", self.name);
            thread::sleep(Duration::from_millis(5));
        }
        self.end()
    }

    /// Kills the program, unless it has ended (`SIGKILL`).
    #[track_caller]
    pub fn kill(mut self) -> Ended {
        let ended = self.end();
        assert_eq!(ended.code, None, "it was to be killed, but has ended before: {ended:#?}");
        ended
    }

    #[track_caller]
    fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("nobody else waits for it").is_some()
    }

    fn end(&mut self) -> Ended {
        // It may have ended by itself.
        let _ = self.child.kill();
        let code = self.child.wait().ok().and_then(|status| status.code());
        let said = |reader: &mut Option<JoinHandle<String>>| {
            reader.take().and_then(|reader| reader.join().ok()).unwrap_or_default()
        };
        Ended { code, stdout: said(&mut self.stdout), stderr: said(&mut self.stderr) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.stdout.is_some() {
            let ended = self.end();
            if thread::panicking() {
                eprintln!("{}\n{}{}", self.name, ended.stdout, ended.stderr);
            }
        }
    }
}

/// Whether the error says that nobody listens. A software device is not there before its program is.
fn is_nobody(error: &Error) -> bool {
    let Error::Connection(failure) = error else { return false };
    failure.reject_reason() == Some(RejectReason::INVALID_SERVICE_ID)
        || is_soft() && failure.event_type() == CmEventType::UNREACHABLE
        || failure.datagram_refusal() == Some(DatagramRefusal::UNSUPPORTED)
}
