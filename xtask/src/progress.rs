//! What a person who waits wants to know, on stderr: what is being done, and how long it took.

use std::time::Instant;

use anyhow::Result;

/// One line of information.
pub(crate) fn say(line: impl std::fmt::Display) {
    eprintln!("xtask: {line}");
}

/// Names a long step, runs it, and says how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    say(format_args!("{what} ..."));
    let start = Instant::now();
    let result = work()?;
    say(format_args!("{what}: done in {:.1} s", start.elapsed().as_secs_f64()));
    Ok(result)
}
