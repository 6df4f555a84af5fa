//! How values, progress and rates are shown.

use std::fmt::{self, Display};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

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

/// Tells how far it is: on a terminal with a bar, else in a line every five seconds.
pub struct Progress {
    total: u64,
    unit: &'static str,
    said: Instant,
    /// Hidden where there is no terminal.
    bar: ProgressBar,
}

impl Progress {
    /// Begins; `iters` is how many messages there will be.
    pub fn new(iters: u64) -> Progress {
        Self::of(iters, "messages")
    }

    /// Begins; `total` is how many there will be of what `unit` says.
    pub fn of(total: u64, unit: &'static str) -> Progress {
        let template = match unit {
            Self::BYTES => "{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}",
            _ => "{wide_bar} {pos}/{len} {msg} {per_sec}",
        };
        let style = ProgressStyle::with_template(template).expect("the template is a valid one");
        let bar = ProgressBar::new(total).with_style(style).with_message(unit);
        Progress { total, unit, said: Instant::now(), bar }
    }

    /// What is counted is bytes.
    pub const BYTES: &'static str = "bytes";

    /// So many are done.
    pub fn step(&mut self, done: u64) {
        if !self.bar.is_hidden() {
            self.bar.set_position(done);
        } else if self.said.elapsed() >= Duration::from_secs(5) && done < self.total {
            eprintln!("{done} of {} {}", self.total, self.unit);
            self.said = Instant::now();
        }
    }
}

/// The line is free for other output.
impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
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
