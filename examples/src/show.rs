//! How values, progress and rates are shown.

use std::fmt::{self, Display};
use std::time::{Duration, Instant};

/// Prints a name and a value; long lists of flags continue on the next line.
pub fn row(indent: usize, name: &str, value: impl Display) {
    const COLUMN: usize = 36;
    let mut line = format!("{:indent$}{name:<width$}", "", width = COLUMN - indent);
    for word in value.to_string().split_inclusive("| ") {
        if line.len() + word.len() > 100 {
            println!("{}", line.trim_end());
            line = " ".repeat(COLUMN);
        }
        line.push_str(word);
    }
    println!("{}", line.trim_end());
}

/// Says every five seconds how far it is.
pub struct Progress {
    iters: u64,
    said: Instant,
}

impl Progress {
    /// Begins; `iters` is how many messages there will be.
    pub fn new(iters: u64) -> Progress {
        Progress { iters, said: Instant::now() }
    }

    /// `done` messages are done.
    pub fn step(&mut self, done: u64) {
        if self.said.elapsed() >= Duration::from_secs(5) && done < self.iters {
            eprintln!("{done} of {} messages", self.iters);
            self.said = Instant::now();
        }
    }
}

/// What was moved and how fast, to be printed.
pub struct Rate {
    /// How many messages.
    pub messages: u64,
    /// How many bytes they had together.
    pub bytes: u64,
    /// How long it took, without filling and checking.
    pub time: Duration,
}

impl Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (messages, bytes, seconds) =
            (self.messages as f64, self.bytes as f64, self.time.as_secs_f64());
        write!(
            f,
            "{} bytes in {seconds:.3} s, {:.0} messages/s, {:.3} GiB/s, {:.1} us per message",
            self.bytes,
            messages / seconds,
            bytes / seconds / f64::from(1 << 30),
            seconds * 1e6 / messages,
        )
    }
}
