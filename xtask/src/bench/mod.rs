//! `cargo xtask bench`: what operations cost above a provider that does next to nothing, in C, on raw FFI and on the
//! crate. docs/cost.md tells what is measured and how.

mod allowance;
mod callgrind;
mod disassembly;
mod program;
mod report;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};

use crate::host::{self, Need};
use crate::progress::{say, step};
use crate::{artifacts, process, vendor, workspace};
use allowance::Allowances;
use callgrind::Part;
use program::{Counted, Timed};
use report::{Cost, Report, Row};

const NEEDS: [Need; 3] = [
    Need::executable("gcc", "build-essential"),
    Need::executable("objdump", "binutils"),
    Need::executable("valgrind", "valgrind"),
];

/// The allowances, in the workspace.
const ALLOWANCES: &str = "benches/allowances.txt";

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct BenchArgs {
    /// Measure no time; fail if a case of the crate needs more instructions than it is allowed, enters the allocator,
    /// or locks memory
    #[arg(long)]
    check: bool,
}

/// Runs the command; returns 0 if there is nothing to complain about.
pub(crate) fn run(args: &BenchArgs) -> Result<u8> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("instructions are counted on x86-64 Linux only");
    }
    host::need(&NEEDS)?;
    vendor::ensure()?;
    let program = build()?;
    let mut report = step("counting instructions", || count(&program))?;
    if !args.check {
        step("measuring time", || time(&program, &mut report))?;
    }
    print!("{report}");
    if !args.check {
        return Ok(0);
    }
    let path = workspace::root().join(ALLOWANCES);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let faults = report.faults(&Allowances::parse(&text).context(ALLOWANCES)?);
    for fault in &faults {
        say(fault);
    }
    Ok(u8::from(!faults.is_empty()))
}

/// Builds the program that carries the cases out, as a release and without optimization at link time.
fn build() -> Result<std::path::PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--release", "--package", "ibverbs-benches"]);
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "false").env_remove("RDMA_CORE_INCLUDE_DIR");
    let built = artifacts::build(&mut cargo)?;
    Ok(built.into_iter().next().context("cargo built no program of ibverbs-benches")?.path)
}

/// Counts the instructions of all cases, under callgrind.
fn count(program: &Path) -> Result<Report> {
    // Here without callgrind, to learn the names of the functions.
    let counted =
        Counted::parse(&process::output(std::process::Command::new(program).arg("count"))?)?;
    let functions: std::collections::BTreeSet<&str> =
        counted.iter().map(|counted| counted.function.as_str()).collect();
    let folder = tempfile::tempdir()?;
    let output = folder.path().join("callgrind.out");
    let mut valgrind = host::command("valgrind");
    valgrind.arg("--tool=callgrind").args(callgrind::options(functions));
    valgrind.arg(format!("--callgrind-out-file={}", output.display())).arg(program).arg("count");
    process::run(&mut valgrind)?;
    let parts = callgrind::parse(&fs::read_to_string(&output).context("callgrind wrote nothing")?)?;
    // Each function ran twice: a first time, which does not count, and to be counted.
    ensure!(
        parts.len() == 2 * counted.len(),
        "callgrind wrote {} parts about {} measurements",
        parts.len(),
        counted.len()
    );
    let mut locking = Locking::default();
    let mut costs = Vec::new();
    for (counted, parts) in counted.iter().zip(parts.chunks(2)) {
        let part = &parts[1];
        ensure!(
            part.function == counted.function,
            "callgrind wrote about {} when {} was expected",
            part.function,
            counted.function
        );
        costs.push((counted, cost(counted, part, &mut locking)?));
    }
    rows(costs)
}

/// The locking instructions of each program or library that was looked at.
#[derive(Default)]
struct Locking(BTreeMap<String, BTreeMap<u64, String>>);

impl Locking {
    fn of(&mut self, object: &str) -> Result<&BTreeMap<u64, String>> {
        if !self.0.contains_key(object) {
            self.0.insert(object.to_owned(), disassembly::locking(object)?);
        }
        Ok(&self.0[object])
    }
}

fn cost(counted: &Counted, part: &Part, locking: &mut Locking) -> Result<Cost> {
    let each = |instructions: u64| (instructions + counted.times / 2) / counted.times;
    let mut locks = Vec::new();
    for place in part.own.keys() {
        if let Some(instruction) = locking.of(&place.object)?.get(&place.address) {
            locks.push(format!("{instruction} in {}", place.function));
        }
    }
    let (own, provider) = (each(part.total - part.provider), each(part.provider));
    ensure!(own > 0 && provider > 0, "{} did nothing, or without the provider", part.function);
    Ok(Cost { own, provider, locking: locks, allocator: counted.allocator, time: None })
}

/// Puts the implementations of each case together.
fn rows(costs: Vec<(&Counted, Cost)>) -> Result<Report> {
    let mut rows = Vec::new();
    let mut costs = costs.into_iter().peekable();
    while let Some((first, _)) = costs.peek() {
        let (name, title) = (first.case.clone(), first.title.clone());
        let mut next = |kind: &str| -> Result<Cost> {
            let cost = costs.next_if(|(counted, _)| counted.case == name && counted.kind == kind);
            Ok(cost.with_context(|| format!("the case {name} is not there in {kind}"))?.1)
        };
        rows.push(Row { c: next("c")?, ffi: next("ffi")?, ours: next("crate")?, name, title });
    }
    Ok(Report(rows))
}

fn time(program: &Path, report: &mut Report) -> Result<()> {
    let output = process::output(std::process::Command::new(program).arg("time"))?;
    let timed = Timed::parse(&output)?;
    for row in &mut report.0 {
        let time = |kind: &str| {
            let found = timed.iter().find(|timed| timed.case == row.name && timed.kind == kind);
            found.map(|timed| timed.nanoseconds)
        };
        (row.c.time, row.ffi.time, row.ours.time) = (time("c"), time("ffi"), time("crate"));
    }
    Ok(())
}
