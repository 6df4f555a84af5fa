//! How many tests ran, and what came of them.

use std::fmt;
use std::time::Duration;

use crate::script::Ended;

/// Numbers of tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Counts {
    /// The sum of what test programs reported: `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    pub(crate) fn of(output: &str) -> Self {
        let mut counts = Self::default();
        for line in output.lines().filter_map(|line| line.strip_prefix("test result: ")) {
            let (_, numbers) = line.split_once(". ").unwrap_or_default();
            for (number, kind) in numbers.split("; ").filter_map(|part| part.split_once(' ')) {
                let number = number.parse().unwrap_or(0);
                match kind {
                    "passed" => counts.passed += number,
                    "failed" => counts.failed += number,
                    "ignored" => counts.ignored += number,
                    _ => {}
                }
            }
        }
        counts
    }
}

/// One program, or several that ran as one.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// Whether it ended as it should, which can be told even if it reported no numbers.
    pub(crate) passed: bool,
    pub(crate) counts: Counts,
    pub(crate) time: Duration,
}

impl From<Ended> for Line {
    fn from(ended: Ended) -> Self {
        let Ended { name, passed, output, time } = ended;
        Self { name, passed, counts: Counts::of(&output), time }
    }
}

/// Everything that ran.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
}

impl Report {
    pub(crate) fn add(&mut self, line: Line) {
        self.lines.push(line);
    }

    /// Whether tests ran, and all that did passed.
    pub(crate) fn is_success(&self) -> bool {
        self.ran() > 0 && self.lines.iter().all(|line| line.passed)
    }

    fn ran(&self) -> u64 {
        self.lines.iter().map(|line| line.counts.passed + line.counts.failed).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|line| line.name.len()).max().unwrap_or_default();
        for Line { name, passed, counts, time } in &self.lines {
            let verdict = if *passed { "ok" } else { "FAILED" };
            let Counts { passed, failed, ignored } = counts;
            writeln!(
                f,
                "{name:width$}  {verdict:6}  {passed:4} passed  {failed:3} failed  {ignored:3} ignored  {:6.1} s",
                time.as_secs_f64()
            )?;
        }
        if self.ran() == 0 {
            writeln!(f, "no test ran: that counts as a failure")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(passed: bool, tests: u64) -> Line {
        let counts = Counts { passed: tests, ..Counts::default() };
        Line { name: "rc".into(), passed, counts, time: Duration::from_millis(1500) }
    }

    fn report(lines: impl IntoIterator<Item = Line>) -> Report {
        Report { lines: lines.into_iter().collect() }
    }

    #[test]
    fn results_are_added_up() {
        let output = "running 4 tests\n\
            test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.03s\n\
            test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 5 filtered out; finished in 0.0s\n";
        assert_eq!(Counts::of(output), Counts { passed: 4, failed: 2, ignored: 1 });
        assert_eq!(Counts::of("test a ... ok"), Counts::default());
    }

    #[test]
    fn success_needs_tests_that_ran() {
        assert!(report([line(true, 3), line(true, 0)]).is_success());
        assert!(!report([line(true, 3), line(false, 1)]).is_success());
        assert!(!report([line(true, 0)]).is_success());
        assert!(!report([]).is_success());
    }

    #[test]
    fn a_report_says_what_ran() {
        let text = report([line(true, 3), line(false, 0)]).to_string();
        assert!(
            text.contains("rc  ok         3 passed    0 failed    0 ignored     1.5 s"),
            "{text}"
        );
        assert!(text.contains("FAILED"));
        assert!(report([line(true, 0)]).to_string().contains("no test ran"));
    }
}
