//! `cargo xtask drop-in`: the software device for programs that are there already, as a library in the place of rdma-core's; and
//! those programs on it.

mod counterparts;
mod library;
mod programs;
mod session;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::progress::say;
use crate::rdma_core;
use programs::{Case, CASES};
use session::Place;

/// Options of `cargo xtask drop-in`.
#[derive(clap::Args)]
pub(crate) struct DropInArgs {
    /// Run the programs of Debian that must work on it, two processes of each, and the tests that talk to
    /// such programs, and say what came of it
    #[arg(long)]
    test: bool,
    /// Not those of Debian, but those of the pinned rdma-core, which are newer
    #[arg(long, requires = "test")]
    pinned: bool,
    /// Only those whose name and options, as the result tells them, have this in them
    #[arg(long, requires = "test", value_name = "TEXT")]
    only: Option<String>,
    /// Seconds that one program may take; tests have times of their own
    #[arg(long, requires = "test", default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
}

/// Runs the command: builds, and prints where the library is, or what came of the programs. Returns 0 if all did what they should.
pub(crate) fn run(args: &DropInArgs) -> Result<u8> {
    let libraries = library::build()?;
    if !args.test {
        println!("{}", libraries.display());
        return Ok(0);
    }
    let pinned = if args.pinned { Some(rdma_core::build()?.programs) } else { None };
    if pinned.is_none() {
        programs::need()?;
    }
    let folder = tempfile::tempdir().context("there is no place for what the programs write")?;
    let limit = Duration::from_secs(args.timeout);
    let place =
        Place { libraries: &libraries, programs: pinned.as_deref(), folder: folder.path(), limit };
    let is_asked_for = |case: &Case| {
        (pinned.is_none() || case.is_of_rdma_core())
            && args.only.as_ref().is_none_or(|text| case.name().contains(text))
    };
    let mut score = Score::default();
    for case in CASES.iter().filter(|case| is_asked_for(case)) {
        score.count(&case.name(), || case.run(&place));
    }
    for program in &counterparts::PROGRAMS {
        let name = counterparts::name(program);
        if args.only.as_ref().is_none_or(|text| name.contains(text)) {
            score.count(&name, || counterparts::run(program, &place));
        }
    }
    let Score { count, failed } = score;
    say(format_args!("{count} runs on the software device, of which {failed} failed"));
    Ok(u8::from(failed > 0 || count == 0))
}

/// What came of the runs.
#[derive(Default)]
struct Score {
    count: u32,
    failed: u32,
}

impl Score {
    /// Runs something, and says what came of it.
    fn count(&mut self, name: &str, run: impl FnOnce() -> Result<()>) {
        let start = Instant::now();
        let result = run();
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!("{name:56} {verdict:6} {:6.1} s", start.elapsed().as_secs_f64());
        self.count += 1;
        if let Err(error) = result {
            println!("{}", short_lines(&format!("{error:#}")));
            self.failed += 1;
        }
    }
}

/// The text with the ends of very long lines left out.
fn short_lines(text: &str) -> String {
    const LONG: usize = 200;
    let short = |line: &str| line.chars().take(LONG).collect::<String>();
    text.lines().map(short).collect::<Vec<_>>().join("\n")
}
