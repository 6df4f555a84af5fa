//! Processes of their own: a peer, which can be killed, and a test that changes what is the whole process's.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::process::{self, Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};

/// What a process was started for, if a test has started it.
const ROLE: &str = "IBVERBS_TEST_PEER";

/// Marks what a peer tells: the test harness prints lines of its own.
const MARK: &str = "peer:";

/// Where software devices are.
const SOFT_ADDR: &str = "IBVERBS_SOFT_ADDR";

/// Addresses for two devices, other ones each time, in the upper half of the network 127.0.0.0/8, whose lower end devices take by
/// themselves.
fn new_addrs() -> String {
    static COUNT: AtomicU8 = AtomicU8::new(0);
    let [.., upper, lower] = process::id().to_be_bytes();
    let number = 2 * (COUNT.fetch_add(1, Ordering::Relaxed) % 127);
    [1, 2].map(|device| format!("127.{}.{lower}.{}", upper | 0x80, number + device)).join(",")
}

/// A process that runs the same test as another one, in another role. It is killed when this is dropped.
#[derive(Debug)]
pub struct PeerProcess {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl PeerProcess {
    /// Starts this program again, for the test of this name. If nothing else is said, its software devices have addresses that are
    /// nobody else's, so that nobody is there when it is dead.
    #[track_caller]
    pub fn start(test: &str, role: &str) -> PeerProcess {
        let mut command = again(test, role);
        if env::var_os(SOFT_ADDR).is_none() {
            command.env(SOFT_ADDR, new_addrs());
        }
        let mut process = command
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

/// Runs the body of the test of this name in a process of its own, whose environment says of the software device and of the
/// provider of verbs these variables and nothing else.
#[track_caller]
pub fn alone(test: &str, variables: &[(&str, &str)], body: impl FnOnce()) {
    alone_with_each(test, &[variables], body);
}

/// The same for each of these sets of variables, in a process each.
#[track_caller]
pub fn alone_with_each(test: &str, sets: &[&[(&str, &str)]], body: impl FnOnce()) {
    if role().is_some() {
        return body();
    }
    sets.iter().for_each(|variables| start_alone(test, variables));
}

#[track_caller]
fn start_alone(test: &str, variables: &[(&str, &str)]) {
    let is_ours = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("IBVERBS_SOFT_") || name == "IBVERBS_PROVIDER"
    };
    let mut command = again(test, "alone");
    for name in env::vars_os().map(|(name, _)| name).filter(is_ours) {
        command.env_remove(name);
    }
    let output = command.envs(variables.iter().copied()).output();
    let output = output.expect("this program cannot be started again");
    let (said, failed) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "with {variables:?}:\n{said}{failed}");
    assert!(said.contains("1 passed"), "the test did not run:\n{said}{failed}");
}

/// This program again, for the test of this name.
#[track_caller]
fn again(test: &str, role: &str) -> Command {
    let program = env::current_exe().expect("this program has no path");
    let mut command = Command::new(program);
    command.args(["--exact", test, "--nocapture"]).env(ROLE, role);
    command
}

/// What this process is to do, if it is a peer.
pub fn role() -> Option<String> {
    env::var(ROLE).ok()
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
