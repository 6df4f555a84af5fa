//! `cargo xtask examples --soft`: every example of verbs on the software device, here, with both of its ways to itself.

use std::ffi::OsString;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::pair::over_tcp;
use super::{alone, build_all, perf, refused, report, ExamplesArgs, BUILD};
use crate::artifacts::Program;
use crate::progress::say;
use crate::script::{Run, Script};
use crate::{process, workspace};

/// Runs the command; returns 0 if every example ran and did what it should.
pub(super) fn run(args: &ExamplesArgs) -> Result<u8> {
    let programs = build_all(workspace::cargo().args(BUILD))?;
    let runs: Vec<Run> = ["memory", "wire"]
        .iter()
        .flat_map(|loopback| {
            programs.iter().flat_map(|program| runs(program, args.iters, loopback))
        })
        .collect();
    let script = Script { runs: &runs, timeout: Duration::from_secs(args.timeout) };
    say(format_args!("running {} examples on the software device", programs.len()));
    let (_, output) = process::relay(Command::new("bash").arg("-c").arg(script.text()))?;
    let mut ended = script.results(&output);
    perf::check(&mut ended, args.iters);
    Ok(report(&ended))
}

/// How an example is run: as any that moves data, unless it is named here.
fn runs(program: &Program, iters: u64, loopback: &str) -> Vec<Run> {
    let each = iters.to_string();
    let with_iters = format!("--iters {each}");
    let iters = ["--iters", &each];
    let runs = match program.name.as_str() {
        "devinfo" => vec![alone(program, &["--verbose"])],
        "first" => vec![alone(program, &[])],
        "efa_srd" => {
            let runs = over_tcp(program, "two processes", [None, None], &iters);
            vec![refused(program, "is no EFA device"), like_efa(runs)]
        }
        "rdmacm_connect" => vec![
            connected(program, "event loop serves", ["--event-loop", &with_iters]),
            connected(program, "event loop calls", ["", &format!("{with_iters} --event-loop")]),
        ],
        "rdmacm_async" => {
            let client = format!("--clients 4 {with_iters}");
            vec![connected(program, "two processes", ["--clients 4", &client])]
        }
        "cm_time" => {
            vec![connected(program, "two processes", ["", &format!("--connections {each}")])]
        }
        "file_copy" => {
            let server = "--into /dev/shm --overwrite --chunk 1";
            vec![connected(program, "two processes", [server, "Cargo.lock"])]
        }
        "perf" => perf::runs(program, &each, &[("two processes", [None, None])]),
        "rc_pingpong" => vec![
            over_tcp(program, "two processes", [None, None], &iters),
            over_tcp(program, "by name", [Some("soft0"), Some("soft0")], &iters),
        ],
        "safe_rpc" => vec![alone(program, &["--seconds", "8", "--kills", "3"])],
        _ => vec![alone(program, &iters)],
    };
    runs.into_iter().map(|run| on(loopback, run)).collect()
}

/// The same, on a software device that is like one of EFA.
fn like_efa(run: Run) -> Run {
    let environment = ["env", "IBVERBS_SOFT_EFA=1"].map(OsString::from);
    Run { command: environment.into_iter().chain(run.command).collect(), ..run }
}

/// A server at an address of its own, of whose device the client has the address, when it listens. If either fails, so does the run.
const CONNECTED: &str = r#"
program=$1
log=$(mktemp)
trap 'rm $log' EXIT
IBVERBS_SOFT_ADDR=127.0.0.101 "$program" --bind 127.0.0.101 $2 > $log &
server=$!
until grep -q listening $log; do kill -0 $server 2> /dev/null || exit 1; sleep .05; done
"$program" 127.0.0.101 $3 || { status=$?; kill $server; exit $status; }
wait $server || exit
cat $log
"#;

/// A program whose two processes connect through the connection manager, with these arguments of the server and of the client.
fn connected(program: &Program, manner: &str, [server, client]: [&str; 2]) -> Run {
    let words = ["bash", "-c", CONNECTED, "bash"].map(OsString::from);
    let path = OsString::from(&program.path);
    let arguments = [server, client].map(OsString::from);
    let command = words.into_iter().chain([path]).chain(arguments).collect();
    Run { name: format!("{}, {manner}", program.name), command }
}

/// The same, on a software device that reaches itself in this way.
fn on(loopback: &str, run: Run) -> Run {
    let environment = ["env", "IBVERBS_PROVIDER=soft"].map(OsString::from);
    let loopback_variable = OsString::from(format!("IBVERBS_SOFT_LOOPBACK={loopback}"));
    let command = environment.into_iter().chain([loopback_variable]).chain(run.command).collect();
    Run { name: format!("{}, {loopback}", run.name), command }
}

#[cfg(test)]
mod tests {
    use super::super::pair::tests::try_out;
    use super::*;

    #[test]
    fn each_runs_on_the_software_device() {
        let program = Program { name: "new".into(), path: "/target/new".into() };
        let runs = runs(&program, 7, "wire");
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].name, "new, wire");
        let variables = ["env", "IBVERBS_PROVIDER=soft", "IBVERBS_SOFT_LOOPBACK=wire"];
        assert_eq!(runs[0].command, [&variables[..], &["/target/new", "--iters", "7"]].concat());
    }

    #[test]
    fn srd_runs_where_it_is_asked_for() {
        let program = Program { name: "efa_srd".into(), path: "/x".into() };
        let is_like_efa = |run: &Run| run.command.contains(&"IBVERBS_SOFT_EFA=1".into());
        let like_efa: Vec<bool> = runs(&program, 7, "wire").iter().map(is_like_efa).collect();
        assert_eq!(like_efa, [false, true]);
    }

    #[test]
    fn a_client_waits_for_its_server() {
        let out =
            |lines: &str| try_out(lines, |program| connected(program, "", ["--late", "--ask"]));
        let (success, lines) =
            out("case $1 in --bind) sleep .2; echo listening;; *) echo $*;; esac");
        assert!(success);
        assert_eq!(lines, ["127.0.0.101 --ask", "listening"]);
        // Whichever fails.
        assert!(!out("case $1 in --bind) exit 1;; esac").0);
        assert!(!out("case $1 in --bind) echo listening; sleep 9;; *) exit 1;; esac").0);
        assert!(!out("case $1 in --bind) echo listening; exit 1;; esac").0);
    }

    #[test]
    fn two_processes_get_the_environment() {
        let program = Program { name: "rc_pingpong".into(), path: "/x".into() };
        for run in runs(&program, 7, "memory") {
            assert_eq!(run.command[..2], ["env", "IBVERBS_PROVIDER=soft"]);
            assert_eq!(run.command[3], "bash");
        }
    }
}
