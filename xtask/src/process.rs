//! Running other programs, with errors that say which one failed and what it printed.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};

use anyhow::{bail, Context, Result};

/// Runs the command with its output hidden; the error carries the last lines of it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs the command and returns what it printed on stdout.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let result = complete(command)?;
    if !result.status.success() {
        let said = if result.stderr.is_empty() { &result.stdout } else { &result.stderr };
        bail!("`{}` failed ({}):\n{}", shown(command), result.status, tail(said));
    }
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

/// Runs the command and returns its output whatever its exit status.
pub(crate) fn complete(command: &mut Command) -> Result<Output> {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => Ok(output),
        Err(error) => bail!("cannot run `{}`: {error}", shown(command)),
    }
}

/// Runs the command with its output shown on stderr, so that this program's stdout stays its own.
pub(crate) fn run_shown(command: &mut Command) -> Result<()> {
    match command.stdin(Stdio::null()).stdout(io::stderr()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("`{}` failed ({status})", shown(command)),
        Err(error) => bail!("cannot run `{}`: {error}", shown(command)),
    }
}

/// Runs a command whose stdout is shown and returned; says whether it succeeded.
pub(crate) fn relay(command: &mut Command) -> Result<(bool, String)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", shown(command)))?;
    let mut output = BufReader::new(child.stdout.take().context("its output is piped")?);
    let (mut all, mut line) = (String::new(), Vec::new());
    while output.read_until(b'\n', &mut line)? > 0 {
        std::io::stdout().write_all(&line)?;
        all += &String::from_utf8_lossy(&line);
        line.clear();
    }
    Ok((child.wait()?.success(), all))
}

/// The command as a person would type it, good enough for a message.
fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy()));
    words.join(" ")
}

/// The last lines of a program's output.
pub(crate) fn tail(output: &[u8]) -> String {
    const LINES: usize = 30;
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_carries_the_command_and_what_it_printed() {
        let error = run(Command::new("sh").args(["-c", "echo out; echo cause >&2; exit 3"]));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("sh -c") && text.contains("exit status: 3"), "{text}");
        assert!(text.ends_with("cause"), "{text}");
    }

    #[test]
    fn output_is_returned_with_the_success() {
        let (success, text) = relay(Command::new("sh").args(["-c", "echo one; exit 1"])).unwrap();
        assert_eq!((success, text.as_str()), (false, "one\n"));
    }

    #[test]
    fn the_tail_is_short() {
        let long = "line\n".repeat(100);
        assert_eq!(tail(long.as_bytes()).lines().count(), 30);
        assert_eq!(tail(b"one\ntwo\n"), "one\ntwo");
    }
}
