//! The script that runs programs in the guest, one after the other, and how its output is read.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use crate::vm::quoted;

/// How long a program whose time is up may take to end before it is killed.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// What starts the lines by which the script says where it is.
const MARK: &str = "=== guest:";

/// Runs one program: its name, then the command.
const FUNCTIONS: &str = r#"
failed=0
run() {
  local name=$1 status begin=${EPOCHREALTIME/[.,]/}
  shift
  echo "$mark begin $name"
  timeout -k $grace $limit "$@"
  status=$?
  [ $status = 124 ] && echo "$name did not end within $limit s"
  [ $status = 0 ] || failed=1
  echo "$mark end $name $status $(( (${EPOCHREALTIME/[.,]/} - begin) / 1000 ))"
}
"#;

/// A command to run.
#[derive(Clone)]
pub(crate) struct Run {
    /// What it is called where its result is told.
    pub(crate) name: String,
    pub(crate) command: Vec<OsString>,
}

/// What came of it.
pub(crate) struct Ended {
    pub(crate) name: String,
    pub(crate) passed: bool,
    /// What it wrote to stdout.
    pub(crate) output: String,
    pub(crate) time: Duration,
}

/// Some commands to run.
pub(crate) struct Script<'a> {
    pub(crate) runs: &'a [Run],
    /// For each of them.
    pub(crate) timeout: Duration,
}

impl Script<'_> {
    /// How long all of it may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.runs.iter().map(|_| self.timeout + GRACE).sum()
    }

    /// The script, for bash.
    pub(crate) fn text(&self) -> OsString {
        let (limit, grace) = (self.timeout.as_secs(), GRACE.as_secs());
        let mut text = format!("mark='{MARK}' limit={limit} grace={grace}").into_bytes();
        text.extend(FUNCTIONS.as_bytes());
        for run in self.runs {
            text.extend(b"run ");
            text.extend(quoted(OsStr::new(&run.name)));
            for word in &run.command {
                text.push(b' ');
                text.extend(quoted(word));
            }
            text.push(b'\n');
        }
        text.extend(b"exit $failed\n");
        OsString::from_vec(text)
    }

    /// What became of each command, out of what the script wrote.
    pub(crate) fn results(&self, stdout: &str) -> Vec<Ended> {
        self.runs.iter().map(|run| result(&run.name, stdout)).collect()
    }
}

fn result(name: &str, stdout: &str) -> Ended {
    let begin = format!("{MARK} begin {name}\n");
    let end = format!("{MARK} end {name} ");
    let part = stdout.split_once(&begin).map_or("", |(_, rest)| rest);
    // If the guest stopped under way there is no end: then it has failed, whatever it wrote so far.
    let (output, rest) = part.split_once(&end).unwrap_or((part, ""));
    let mut numbers = rest.split_whitespace().map_while(|word| word.parse::<u64>().ok());
    let status = numbers.next();
    let milliseconds = numbers.next().unwrap_or_default();
    Ended {
        name: name.into(),
        passed: status == Some(0),
        output: output.into(),
        time: Duration::from_millis(milliseconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Runs scripts of `sh`, each with these arguments.
    fn run(scripts: &[(&str, &str)], timeout: u64) -> (Option<i32>, Vec<Ended>) {
        let runs: Vec<Run> = scripts
            .iter()
            .map(|(name, text)| Run {
                name: (*name).into(),
                command: ["sh", "-c", *text, "sh", "it's", "1 2"].map(OsString::from).into(),
            })
            .collect();
        let script = Script { runs: &runs, timeout: Duration::from_secs(timeout) };
        let out = Command::new("bash").arg("-c").arg(script.text()).output().unwrap();
        (out.status.code(), script.results(&String::from_utf8(out.stdout).unwrap()))
    }

    #[test]
    fn passing_programs() {
        let (status, ended) = run(&[("one", "echo \"$1\""), ("two words", "echo \"$2\"")], 60);
        assert_eq!(status, Some(0));
        assert!(ended.iter().all(|ended| ended.passed));
        let told: Vec<_> = ended.iter().map(|ended| (&*ended.name, &*ended.output)).collect();
        assert_eq!(told, [("one", "it's\n"), ("two words", "1 2\n")]);
    }

    #[test]
    fn a_failure_does_not_keep_the_next_from_running() {
        let (status, ended) = run(&[("one", "exit 101"), ("two", "exit 0")], 60);
        assert_eq!(status, Some(1));
        assert_eq!(ended.iter().map(|ended| ended.passed).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let (status, ended) = run(&[("slow", "exec sleep 30")], 1);
        assert_eq!(status, Some(1));
        assert!(!ended[0].passed);
    }

    #[test]
    fn a_program_that_never_ended_has_failed() {
        let ended = result("one", &format!("{MARK} begin one\nhalf a line"));
        assert!(!ended.passed);
        assert_eq!(ended.output, "half a line");
        assert!(!result("two", "").passed);
    }
}
