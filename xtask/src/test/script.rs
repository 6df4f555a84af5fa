//! The script that runs the test programs in the guest, one after the other, and how its output is read.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use super::report::{Counts, Line};
use crate::artifacts::Program;
use crate::vm::quoted;

/// How long a program whose time is up may take to end before it is killed.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// What starts the lines by which the script says where it is.
const MARK: &str = "=== device tests:";

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

/// Some test programs to run.
pub(crate) struct Script<'a> {
    pub(crate) programs: &'a [Program],
    /// For each of them.
    pub(crate) timeout: Duration,
    pub(crate) threads: usize,
    /// Variables for the programs only.
    pub(crate) environment: Vec<(&'static str, OsString)>,
    pub(crate) arguments: &'a [OsString],
}

impl Script<'_> {
    /// The script, for bash.
    pub(crate) fn text(&self) -> OsString {
        let (limit, grace) = (self.timeout.as_secs(), GRACE.as_secs());
        let mut text = format!("mark='{MARK}' limit={limit} grace={grace}").into_bytes();
        text.extend(FUNCTIONS.as_bytes());
        for program in self.programs {
            text.extend(b"run ");
            text.extend(quoted(OsStr::new(&program.name)));
            text.extend(b" env");
            for (name, value) in &self.environment {
                text.extend(format!(" {name}=").as_bytes());
                text.extend(quoted(value));
            }
            text.push(b' ');
            text.extend(quoted(program.path.as_os_str()));
            text.extend(format!(" --test-threads={}", self.threads).as_bytes());
            for argument in self.arguments {
                text.push(b' ');
                text.extend(quoted(argument));
            }
            text.push(b'\n');
        }
        text.extend(b"exit $failed\n");
        OsString::from_vec(text)
    }

    /// What became of each program, out of what the script wrote.
    pub(crate) fn results(&self, stdout: &str) -> Vec<Line> {
        self.programs.iter().map(|program| result(&program.name, stdout)).collect()
    }
}

fn result(name: &str, stdout: &str) -> Line {
    let begin = format!("{MARK} begin {name}\n");
    let end = format!("{MARK} end {name} ");
    let part = stdout.split_once(&begin).map_or("", |(_, rest)| rest);
    // If the guest stopped under way there is no end: then it has failed, whatever it wrote so far.
    let (output, rest) = part.split_once(&end).unwrap_or((part, ""));
    let mut numbers = rest.split_whitespace().map_while(|word| word.parse::<u64>().ok());
    let status = numbers.next();
    let milliseconds = numbers.next().unwrap_or_default();
    Line {
        name: name.into(),
        passed: status == Some(0),
        counts: Counts::of(output),
        time: Duration::from_millis(milliseconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const FAKE: &str = "#!/bin/sh\necho \"running $1 $2\"\necho 'test result: ok. 2 passed; 0 failed; 1 ignored; 0'\n";

    fn run(programs: &[(&str, &str)], timeout: u64) -> (Option<i32>, Vec<Line>) {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let programs: Vec<Program> = programs
            .iter()
            .map(|(name, text)| {
                let path = folder.path().join(format!("{name}-1"));
                std::fs::write(&path, text).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
                Program { name: (*name).into(), path }
            })
            .collect();
        let script = Script {
            programs: &programs,
            timeout: Duration::from_secs(timeout),
            threads: 1,
            environment: vec![("A", "1 2".into())],
            arguments: &["it's".into()],
        };
        let out = Command::new("bash").arg("-c").arg(script.text()).output().unwrap();
        (out.status.code(), script.results(&String::from_utf8(out.stdout).unwrap()))
    }

    #[test]
    fn passing_programs() {
        let checks = format!(
            "{FAKE}[ \"$A\" = '1 2' ] && [ \"$1\" = --test-threads=1 ] && [ \"$2\" = \"it's\" ]\n"
        );
        let (status, lines) = run(&[("one", FAKE), ("two", &checks)], 60);
        assert_eq!(status, Some(0));
        assert!(lines
            .iter()
            .all(|line| line.passed && line.counts.passed == 2 && line.counts.ignored == 1));
    }

    #[test]
    fn a_failure_does_not_keep_the_next_from_running() {
        let (status, lines) = run(&[("one", "#!/bin/sh\nexit 101\n"), ("two", FAKE)], 60);
        assert_eq!(status, Some(1));
        assert_eq!(lines.iter().map(|line| line.passed).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let (status, lines) = run(&[("slow", "#!/bin/sh\nexec sleep 30\n")], 1);
        assert_eq!(status, Some(1));
        assert!(!lines[0].passed);
    }

    #[test]
    fn a_program_that_never_ended_has_failed() {
        let line = result(
            "one",
            &format!("{MARK} begin one\ntest result: ok. 1 passed; 0 failed; 0 ignored\n"),
        );
        assert!(!line.passed);
        assert_eq!(line.counts.passed, 1);
        assert!(!result("two", "").passed);
    }
}
