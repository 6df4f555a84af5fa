//! What an operation costs: in C, on raw FFI and on this crate, above a provider that does next to nothing.
//!
//! `cargo xtask bench` runs it, and makes a table of what it prints: docs/cost.md tells what is measured and how.
//!
//! - `count` carries each case out twice, once and then many times, for callgrind. Prints, for each of its
//!   implementations, the case, the kind, the function, how many times, how often the allocator was entered meanwhile,
//!   and the title of the case.
//! - `time` prints the case, the kind and the nanoseconds that it takes.

mod alloc;
mod cases;
mod in_crate;
mod in_ffi;
mod rig;
mod time;

use std::process::ExitCode;

use cases::Case;
use rig::{Prepared, Raw, Rig};

/// How often a case is carried out to be counted.
const COUNTED: u64 = 1000;

fn main() -> ExitCode {
    let mut rig = Rig::new().expect("the null provider refuses nothing");
    let mut prepared = Prepared::new(&rig);
    let raw = rig.raw(&mut prepared);
    let cases = cases::all();
    match std::env::args().nth(1).as_deref() {
        Some("count") => count(&cases, &mut rig, &raw),
        Some("time") => time(&cases, &mut rig, &raw),
        _ => {
            eprintln!("usage: ibverbs-benches count|time");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn count(cases: &[Case], rig: &mut Rig, raw: &Raw) {
    for Case { name, title, implementations } in cases {
        for implementation in implementations {
            // The first time, symbols may have to be resolved.
            implementation.run(rig, raw, 1);
            let before = alloc::calls();
            implementation.run(rig, raw, COUNTED);
            let allocator = alloc::calls() - before;
            let (kind, symbol) = (implementation.kind, implementation.symbol);
            println!("{name}\t{kind}\t{symbol}\t{COUNTED}\t{allocator}\t{title}");
        }
    }
}

fn time(cases: &[Case], rig: &mut Rig, raw: &Raw) {
    for case in cases {
        let medians = time::medians(case, rig, raw);
        for (implementation, nanoseconds) in case.implementations.iter().zip(medians) {
            println!("{}\t{}\t{nanoseconds:.2}", case.name, implementation.kind);
        }
    }
}
