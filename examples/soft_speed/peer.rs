//! The other process, and the lines that both tell each other.

use std::io::{BufRead, BufReader, StdinLock, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{ensure, Context as _, Result};

use crate::Options;

/// Whom lines are exchanged with.
pub(crate) trait Lines {
    /// Tells a line, and hears one.
    fn exchange(&mut self, line: &str) -> Result<String>;
}

/// Who says what it hears: this queue pair's peer is itself.
pub(crate) struct Echo;

impl Lines for Echo {
    fn exchange(&mut self, line: &str) -> Result<String> {
        Ok(line.to_owned())
    }
}

/// The process that has started this one.
pub(crate) struct Parent(StdinLock<'static>);

impl Parent {
    pub(crate) fn new() -> Parent {
        Parent(std::io::stdin().lock())
    }
}

impl Lines for Parent {
    fn exchange(&mut self, line: &str) -> Result<String> {
        println!("{line}");
        read_line(&mut self.0)
    }
}

/// The process that this one has started.
pub(crate) struct Peer {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Peer {
    pub(crate) fn start(options: &Options) -> Result<Peer> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--peer", "--iters", &options.iters.to_string()])
            .args(["--messages", &options.messages.to_string()])
            .args(options.installed.then_some("--installed"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the peer cannot be started")?;
        let output = BufReader::new(process.stdout.take().context("it is piped")?);
        Ok(Peer { process, output })
    }
}

impl Lines for Peer {
    fn exchange(&mut self, line: &str) -> Result<String> {
        writeln!(self.process.stdin.as_mut().context("it is piped")?, "{line}")?;
        read_line(&mut self.output)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read_line(from: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    ensure!(from.read_line(&mut line)? > 0, "the other process has ended");
    Ok(line.trim().to_owned())
}
