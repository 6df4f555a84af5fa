//! `cargo xtask examples`: every example, in one guest; those of two processes between devices and namespaces as well. Or
//! here, on the software device.

mod connected;
mod pair;
mod perf;
mod soft;

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{bail, Context, Result};

use crate::artifacts::Program;
use crate::link::Link;
use crate::progress::say;
use crate::script::{Ended, Run, Script};
use crate::vm::{self, Job, MachineArgs, Network, RdmaCore};
use crate::{artifacts, peers, workspace};
use pair::{over_tcp, Connecting, ADDRESS, SOURCE};

/// Options of `cargo xtask examples`.
#[derive(clap::Args)]
pub(crate) struct ExamplesArgs {
    #[command(flatten)]
    machine: MachineArgs,
    /// Run them here, on the software device, and not under a SoftRoCE kernel
    #[arg(long)]
    soft: bool,
    /// How the examples find the native library
    #[arg(long, value_enum, default_value_t)]
    link: Link,
    /// How many messages each example sends
    #[arg(long, default_value_t = 200, value_name = "N")]
    iters: u64,
    /// Seconds that one example may take
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    timeout: u64,
}

/// A program of rdma-core that connects through the connection manager. If it fails as well as the examples that do, it is
/// not they that are to blame.
const RPING: Connecting<'_> = Connecting {
    manner: "",
    server: &["-s", "-a", ADDRESS],
    client: &["-c", "-a", ADDRESS, "-I", SOURCE, "-V", "-C", "10"],
};

/// A program that must fail, with a last line on its standard error that has this in it.
const REFUSED: &str = r#"
if output=$(RUST_LIB_BACKTRACE=0 "$1" 2>&1 >/dev/null); then echo "it did not fail"; exit 1; fi
echo "$output"
tail -n 1 <<< "$output" | grep -q -- "$2"
"#;

/// Runs the command; returns 0 if every example ran and succeeded.
pub(crate) fn run(args: &ExamplesArgs) -> Result<u8> {
    if args.soft {
        return soft::run(args);
    }
    let guest = vm::prepare(&args.machine)?;
    let build = args.link.prepare()?;
    let programs = build_all(&mut build.cargo(&BUILD))?;
    let mut runs: Vec<Run> =
        programs.iter().flat_map(|program| runs(program, args.iters, guest.networks())).collect();
    if args.link.rdma_core() != RdmaCore::None {
        peers::need()?;
        let rping = Program { name: "rping".into(), path: peers::rping()? };
        runs.extend(RPING.runs(&rping, guest.networks()));
    }
    let script = Script { runs: &runs, timeout: Duration::from_secs(args.timeout) };
    say(format_args!("running {} examples under Linux {}", programs.len(), guest.release()));
    let outcome = guest.run(&Job {
        command: &["bash".into(), "-c".into(), script.text()],
        folder: workspace::root(),
        writable: &[],
        devices: vm::DEFAULT_DEVICES,
        networks: guest.networks(),
        rdma_core: args.link.rdma_core(),
        timeout: Some(script.timeout()),
        keep_stdout: true,
    })?;
    let mut ended = script.results(&String::from_utf8_lossy(&outcome.stdout));
    perf::check(&mut ended, args.iters);
    Ok(report(&ended))
}

/// What cargo is to build.
const BUILD: [&str; 4] = ["build", "--package", "ibverbs-examples", "--examples"];

/// Builds every example.
fn build_all(cargo: &mut Command) -> Result<Vec<Program>> {
    let programs = artifacts::build(cargo)?;
    check_complete(&workspace::root().join("examples"), &programs)?;
    Ok(programs)
}

/// Prints what came of the examples; returns 0 if all succeeded.
fn report(ended: &[Ended]) -> u8 {
    let width = ended.iter().map(|ended| ended.name.len()).max().unwrap_or_default();
    println!();
    for ended in ended {
        let verdict = if ended.passed { "ok" } else { "FAILED" };
        println!("{:width$}  {verdict:6}  {:6.1} s", ended.name, ended.time.as_secs_f64());
    }
    u8::from(!ended.iter().all(|ended| ended.passed))
}

/// An error if there is an example that was not built.
fn check_complete(folder: &Path, programs: &[Program]) -> Result<()> {
    let entries = folder.read_dir().with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let is_source = path.extension().is_some_and(|extension| extension == "rs");
        let is_example = is_source || path.join("main.rs").exists();
        if is_example && !programs.iter().any(|program| program.name == name) {
            bail!(
                "{} was not built, and would not run: is it in Cargo.toml, with no feature that is off?",
                path.display()
            );
        }
    }
    Ok(())
}

/// Where two processes are in a guest that find each other over TCP.
const ONE_DEVICE: (&str, [Option<&str>; 2]) = ("one device", [Some("rxe0"); 2]);
const TWO_DEVICES: (&str, [Option<&str>; 2]) = ("two devices", [Some("wired0"), Some("wired1")]);

/// How an example is run: as any that moves data, unless it is named here.
fn runs(program: &Program, iters: u64, networks: &[Network]) -> Vec<Run> {
    let iters = iters.to_string();
    if let Some(runs) = connected::runs(program, &iters, networks) {
        return runs;
    }
    if program.name == "perf" {
        return perf::runs(program, &iters, &[ONE_DEVICE, TWO_DEVICES]);
    }
    let iters = ["--iters", &iters];
    let two_processes = |(place, devices)| over_tcp(program, place, devices, &iters);
    match program.name.as_str() {
        "devinfo" => vec![alone(program, &["--verbose"])],
        "first" => vec![alone(program, &[])],
        // There is no such device here, which it must say.
        "efa_srd" => vec![refused(program, "is no EFA device")],
        "rc_pingpong" => vec![two_processes(ONE_DEVICE), two_processes(TWO_DEVICES)],
        "safe_rpc" => {
            let wired = ["--device", "wired0", "--server-device", "wired1"];
            let trial = |place: &str, devices: &[&str]| {
                // What is killed takes a second or two to come back here.
                let arguments = [&["--seconds", "20", "--kills", "3"], devices].concat();
                let run = alone(program, &arguments);
                Run { name: format!("{}, {place}", run.name), ..run }
            };
            vec![trial("one device", &[]), trial("two devices", &wired)]
        }
        // They are about the software device, whose port SoftRoCE has here.
        "soft_faults" | "soft_speed" => vec![],
        _ => vec![alone(program, &iters)],
    }
}

fn alone(program: &Program, arguments: &[&str]) -> Run {
    let path = OsString::from(&program.path);
    let arguments = arguments.iter().map(OsString::from);
    Run { name: program.name.clone(), command: [path].into_iter().chain(arguments).collect() }
}

fn refused(program: &Program, message: &str) -> Run {
    let path = OsString::from(&program.path);
    let words = ["bash", "-c", REFUSED, "bash"].map(OsString::from);
    let command = words.into_iter().chain([path, message.into()]).collect();
    Run { name: format!("{}, refused", program.name), command }
}

#[cfg(test)]
mod tests {
    use super::pair::tests::try_out;
    use super::*;

    fn program(name: &str) -> Program {
        Program { name: name.into(), path: format!("/target/{name}").into() }
    }

    #[test]
    fn an_example_that_was_not_built_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["src", "three"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        for name in ["one.rs", "two.rs", "three/main.rs", "src/lib.rs", "Cargo.toml"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let built = ["one", "two", "three"].map(program);
        check_complete(folder.path(), &built).unwrap();
        let check = |built| check_complete(folder.path(), built).unwrap_err().to_string();
        assert!(check(&built[1..]).contains("one.rs was not built"));
        assert!(check(&built[..2]).contains("three was not built"));
    }

    #[test]
    fn an_example_that_nobody_named_is_run() {
        let runs = runs(&program("new"), 7, &[]);
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].command, ["/target/new", "--iters", "7"]);
    }

    #[test]
    fn a_refusal_is_a_failure_that_says_why() {
        let refusal = |example| try_out(example, |program| refused(program, "no such device")).0;
        assert!(refusal("echo null0; echo 'Error: no such device' >&2; exit 1"));
        assert!(!refusal("echo 'Error: no such device' >&2"));
        assert!(!refusal("echo 'no such device'; exit 1"));
        assert!(!refusal("echo 'no such device' >&2; echo 'Segmentation fault' >&2; exit 139"));
    }
}
