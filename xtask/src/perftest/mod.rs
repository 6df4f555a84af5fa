//! `cargo xtask perftest`: the example `perf` beside the programs of perftest, which everybody measures RDMA with: in one
//! guest, over one wire between two SoftRoCE devices, in turns. Nothing is asked of the numbers but that they are there.

pub(crate) mod figures;

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::{ensure, Context, Result};

use crate::host::{self, Need};
use crate::progress::say;
use crate::script::{Run, Script};
use crate::vm::{self, Job, MachineArgs, Network, RdmaCore};
use crate::{artifacts, workspace};
use figures::{of_perf, of_perftest, Figures};

/// Options of `cargo xtask perftest`.
#[derive(clap::Args)]
pub(crate) struct PerftestArgs {
    #[command(flatten)]
    machine: MachineArgs,
    /// How many operations each program does, rounded up to whole batches
    #[arg(long, default_value_t = 320, value_name = "N", value_parser = clap::value_parser!(u64).range(5..))]
    iters: u64,
    /// Seconds that one program may take
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
}

/// What is measured: by perftest, and by the example.
struct Case {
    program: &'static str,
    /// The further options of perftest's.
    options: &'static str,
    /// What the example is told.
    perf: &'static str,
    size: u32,
}

const fn case(program: &'static str, options: &'static str, perf: &'static str, size: u32) -> Case {
    Case { program, options, perf, size }
}

/// Each has the same sizes, windows, batches and moderation on both sides. Nothing is sent inline: perftest takes no
/// device for one that could that it does not know.
const CASES: [Case; 11] = [
    case("ib_send_lat", "", "latency send", 8),
    case("ib_send_lat", "-c UC", "latency send -t uc", 8),
    case("ib_send_lat", "-c UD", "latency send -t ud", 8),
    case("ib_write_lat", "", "latency write", 8),
    case("ib_read_lat", "", "latency read", 8),
    case("ib_atomic_lat", "-A FETCH_AND_ADD", "latency fetch-add", 8),
    case("ib_send_bw", FLOW, "bandwidth send", 4096),
    case("ib_write_bw", FLOW, "bandwidth write", 4096),
    case("ib_write_bw", FLOW_OF_UC, "bandwidth write -t uc", 4096),
    case("ib_read_bw", FLOW, "bandwidth read", 4096),
    case("ib_atomic_bw", "-A FETCH_AND_ADD -t 128 -Q 16 -l 16", "bandwidth fetch-add", 8),
];

/// How many operations are posted with one doorbell. perftest does whole ones only.
const BATCH: u64 = 16;
/// The window, the moderation of completions and the batch.
const FLOW: &str = "-t 128 -Q 16 -l 16";
const FLOW_OF_UC: &str = "-t 128 -Q 16 -l 16 -c UC";

/// Where perftest's server waits: 18515, and the example's: 18516, as `/proc/net/tcp` has them.
const PERFTEST_PORT: &str = "4853";
const PERF_PORT: &str = "4854";

/// Runs a server, and a client when that listens on the port, the first word. Dashes are between the two commands.
const PAIR: &str = r#"
port=$1
shift
server=()
while [ "$1" != -- ]; do server+=("$1"); shift; done
shift
"${server[@]}" > /dev/null &
until grep -q ":$port .* 0A " /proc/net/tcp /proc/net/tcp6; do
  kill -0 $! || exit
  sleep .02
done
"$@" || { status=$?; kill $!; exit $status; }
wait $!
"#;

/// Runs the command; returns 0 if both programs ran and printed numbers for all that is measured.
pub(crate) fn run(args: &PerftestArgs) -> Result<u8> {
    host::need(&CASES.map(|case| Need::executable(case.program, "perftest")))?;
    let guest = vm::prepare(&args.machine)?;
    let build = ["build", "--release", "--package", "ibverbs-examples", "--example", "perf"];
    let programs = artifacts::build(workspace::cargo().args(build))?;
    let perf = &programs.first().context("the example perf was not built")?.path;
    let mut runs = Vec::new();
    for case in &CASES {
        runs.extend(case.runs(perf, args.iters.next_multiple_of(BATCH))?);
    }
    let script = Script { runs: &runs, timeout: Duration::from_secs(args.timeout) };
    say(format_args!("running perftest and the example perf under Linux {}", guest.release()));
    let outcome = guest.run(&Job {
        command: &["bash".into(), "-c".into(), script.text()],
        folder: workspace::root(),
        writable: &[],
        devices: 1,
        networks: &[Network::Wire],
        rdma_core: RdmaCore::Pinned,
        timeout: Some(script.timeout()),
        keep_stdout: true,
    })?;
    let ended = script.results(&String::from_utf8_lossy(&outcome.stdout));
    println!();
    for line in Figures::HEAD {
        println!("{line}");
    }
    let mut missing = 0;
    for (case, ended) in CASES.iter().zip(ended.chunks(2)) {
        let [perftest, perf] = ended else { break };
        let figures = |ended: &crate::script::Ended, read: fn(&str) -> Result<Figures>| {
            ensure!(ended.passed, "{} failed", ended.name);
            read(&ended.output).with_context(|| format!("{} has no numbers", ended.name))
        };
        for (name, figures) in [
            (case.perftest(), figures(perftest, of_perftest)),
            (format!("perf {}", case.perf), figures(perf, of_perf)),
        ] {
            match figures {
                Ok(figures) => println!("{name:<32} {:>6} {figures}", case.size),
                Err(error) => {
                    println!("{name:<32} {error:#}");
                    missing += 1;
                }
            }
        }
    }
    Ok(u8::from(missing > 0))
}

impl Case {
    /// What perftest is told beside what is the same everywhere.
    fn perftest(&self) -> String {
        let transport = self.options.split_once("-c ").map_or("", |(_, transport)| transport);
        format!("{} {transport}", self.program).trim_end().to_owned()
    }

    fn is_bandwidth(&self) -> bool {
        self.program.ends_with("_bw")
    }

    /// perftest's, and the example's.
    fn runs(&self, perf: &Path, iters: u64) -> Result<[Run; 2]> {
        let program =
            host::find(self.program).with_context(|| format!("{} is missing", self.program))?;
        let (size, iters) = (self.size.to_string(), iters.to_string());
        let pair = |name: String, port: &str, program: &Path, server: String, client: String| {
            let words =
                |text: &str| text.split_whitespace().map(OsString::from).collect::<Vec<_>>();
            let mut command = ["bash", "-c", PAIR, "bash", port].map(OsString::from).to_vec();
            command.push(program.into());
            command.extend(words(&server));
            command.extend(["--".into(), program.into()]);
            command.extend(words(&client));
            Run { name, command }
        };
        // Atomics have one size, which perftest does not want to be told.
        let sized =
            if self.program.contains("atomic") { String::new() } else { format!("-s {size}") };
        let options = format!("-F -n {iters} {sized} {}", self.options);
        let theirs = pair(
            self.perftest(),
            PERFTEST_PORT,
            &program,
            format!("-d wired0 {options}"),
            format!("-d wired1 {options} 127.0.0.1"),
        );
        let more =
            if self.is_bandwidth() { "--window 128 --batch 16 --signal-every 16" } else { "" };
        let ours = pair(
            format!("perf {}", self.perf),
            PERF_PORT,
            perf,
            "serve --device wired0".into(),
            format!(
                "{} --device wired1 --size {size} -n {iters} --inline 0 {more} --json - 127.0.0.1",
                self.perf
            ),
        );
        Ok([theirs, ours])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_has_a_name_of_its_own() {
        let mut names: Vec<String> =
            CASES.iter().flat_map(|case| [case.perftest(), case.perf.into()]).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 2 * CASES.len());
    }
}
