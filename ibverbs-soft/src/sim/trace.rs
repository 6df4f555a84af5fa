//! Running a property over seeds, and telling what happened when it does not hold.

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::wire::{Encapsulation, PcapWriter};

/// What happened, line by line, if anybody wants to know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Option<Rc<RefCell<Story>>>);

#[derive(Debug, Default)]
struct Story {
    lines: Vec<String>,
    capture: Option<PcapWriter<File>>,
}

impl Trace {
    /// One that writes a capture as well, if `IBVERBS_SOFT_PCAP` names a file.
    fn on() -> Trace {
        let capture = std::env::var_os("IBVERBS_SOFT_PCAP").map(|path| {
            let file = File::create(&path);
            let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.to_string_lossy()));
            PcapWriter::new(file).expect("a file that was created can be written")
        });
        Trace(Some(Rc::new(RefCell::new(Story { capture, ..Story::default() }))))
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn line(&self, time: Duration, what: fmt::Arguments<'_>) {
        if let Some(story) = &self.0 {
            let lines = &mut story.borrow_mut().lines;
            lines.push(format!("{:>13.3} us  {what}", time.as_nanos() as f64 / 1e3));
        }
    }

    /// Captures a packet that is sent.
    pub(crate) fn capture(&self, time: Duration, encapsulation: &Encapsulation, bytes: &[u8]) {
        if let Some(story) = &self.0 {
            if let Some(capture) = &mut story.borrow_mut().capture {
                capture.write(time, encapsulation, bytes).expect("a file can be written");
            }
        }
    }

    /// Prints the last lines.
    fn print(&self, count: usize) {
        let Some(story) = &self.0 else { return };
        let lines = &story.borrow().lines;
        let skipped = lines.len().saturating_sub(count);
        if skipped > 0 {
            println!("({skipped} lines before these)");
        }
        for line in &lines[skipped..] {
            println!("{line}");
        }
    }
}

/// Runs a property for this many seeds, on all processors. One that fails is run again for its trace.
///
/// `IBVERBS_SOFT_SEED=n` runs that seed alone and prints its trace, and `IBVERBS_SOFT_PCAP=file` captures its packets.
/// `IBVERBS_SOFT_SEEDS=n` runs n times as many seeds.
pub(crate) fn for_seeds(count: u64, property: impl Fn(u64, &Trace) + Sync) {
    if let Some(seed) = variable("IBVERBS_SOFT_SEED") {
        run_traced(seed, usize::MAX, &property);
        return;
    }
    let count = count * variable("IBVERBS_SOFT_SEEDS").unwrap_or(1);
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(u64::MAX);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= count.min(failed.load(Ordering::Relaxed)) {
                    return;
                }
                let run = AssertUnwindSafe(|| property(seed, &Trace::default()));
                if catch_unwind(run).is_err() {
                    failed.fetch_min(seed, Ordering::Relaxed);
                }
            });
        }
    });
    let seed = failed.into_inner();
    if seed != u64::MAX {
        run_traced(seed, 400, &property);
        panic!("seed {seed} failed, but not when it was run again: it is not deterministic");
    }
}

fn run_traced(seed: u64, lines: usize, property: &impl Fn(u64, &Trace)) {
    let trace = Trace::on();
    let result = catch_unwind(AssertUnwindSafe(|| property(seed, &trace)));
    trace.print(lines);
    if let Err(panic) = result {
        println!("failed with IBVERBS_SOFT_SEED={seed}");
        resume_unwind(panic);
    }
}

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is {value:?}: a number is expected")))
}
