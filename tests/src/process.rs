//! A peer in a process of its own, which can be killed.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What a process was started for, if a test has started it.
const ROLE: &str = "IBVERBS_TEST_PEER";

/// Marks what a peer tells: the test harness prints lines of its own.
const MARK: &str = "peer:";

/// A process that runs the same test as another one, in another role. It is killed when this is dropped.
#[derive(Debug)]
pub struct PeerProcess {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl PeerProcess {
    /// Starts this program again, for the test of this name.
    #[track_caller]
    pub fn start(test: &str, role: &str) -> PeerProcess {
        let program = std::env::current_exe().expect("this program has no path");
        let mut process = Command::new(program)
            .args(["--exact", test, "--nocapture"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program cannot be started again");
        let input = process.stdin.take().expect("it is piped");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        PeerProcess { process, input, output }
    }

    /// The line that the peer tells next.
    #[track_caller]
    pub fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            let len = self.output.read_line(&mut line).expect("the peer says something else");
            assert!(len > 0, "the peer is gone");
            if let Some((_, told)) = line.trim().split_once(MARK) {
                return told.to_owned();
            }
        }
    }

    /// Tells the peer a line.
    #[track_caller]
    pub fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the peer is gone");
    }

    /// Stops the peer, so that it does nothing more but is still there (`SIGSTOP`).
    #[track_caller]
    pub fn stop(&mut self) {
        let id = self.process.id().try_into().expect("a process has a small number");
        // SAFETY: kill(2) takes any numbers. The process is this one's child, and was not waited for, so that no
        // other has its number.
        assert_eq!(unsafe { libc::kill(id, libc::SIGSTOP) }, 0, "the peer cannot be stopped");
    }
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What this process is to do, if it is a peer.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Tells the process that has started this one a line.
pub fn tell(line: &str) {
    println!("\n{MARK}{line}");
}

/// The line that the process tells that has started this one.
#[track_caller]
pub fn hear() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("nothing can be heard");
    line.trim().to_owned()
}

/// Waits for the other process to kill this one.
pub fn wait_for_death() -> ! {
    loop {
        std::thread::park();
    }
}
