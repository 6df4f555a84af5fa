//! How the example `perf` is run: alone, as a server with a client for each thing that it measures, and with a process
//! that dies; and how the numbers are looked at that it writes.

use std::ffi::OsString;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use super::alone;
use crate::artifacts::Program;
use crate::script::{Ended, Run};

/// What is measured between two processes: of each what is measured, the operation and the transport.
const MEASURED: [[&str; 3]; 16] = [
    ["latency", "send", "rc"],
    ["latency", "send", "uc"],
    ["latency", "send", "ud"],
    ["latency", "write", "rc"],
    ["latency", "write", "uc"],
    ["latency", "read", "rc"],
    ["latency", "fetch-add", "rc"],
    ["latency", "compare-swap", "rc"],
    ["bandwidth", "send", "rc"],
    ["bandwidth", "send", "uc"],
    ["bandwidth", "send", "ud"],
    ["bandwidth", "write", "rc"],
    ["bandwidth", "write", "uc"],
    ["bandwidth", "read", "rc"],
    ["bandwidth", "fetch-add", "rc"],
    ["bandwidth", "compare-swap", "rc"],
];

/// How many queue pairs there are where bandwidth is measured. They do as much each.
const QUEUE_PAIRS: u64 = 3;

/// What the names of runs begin with whose output [`check`] looks at.
const NUMBERS: &str = "perf, numbers";

/// What the scripts share: the program, how many operations it does, and the options of either side.
const FUNCTIONS: &str = r#"
export RUST_LIB_BACKTRACE=0
program=$1 iters=$2 here=$3 there=$4
fail() { echo "failed: $*"; exit 1; }
serve() {
  "$program" serve $there "$@" &
  server=$!
}
"#;

/// Measures what it is told, three words each. Atomics have one size; bandwidth is measured with a batch that does not
/// divide what is to be done, and with seldom completions.
const MEASURE: &str = r#"
shift 4
serve --clients $(($# / 3))
while [ $# -gt 0 ]; do
  case $2 in fetch-add | compare-swap) sizes= ;; *) sizes='--sizes 64..128' ;; esac
  case $1 in bandwidth) flow='--qps 3 --window 32 --batch 7 --signal-every 20' ;; *) flow= ;; esac
  "$program" $1 $2 --transport $3 $here $sizes $flow --warmup 10 --iters $iters --json - localhost ||
    { kill $server; fail "$*"; }
  shift 3
done
wait $server || fail "the server"
"#;

/// What a process is killed in the middle of. Where datagrams are among it, SoftRoCE of Linux 6.12 warns of a queue pair that it
/// works on and that is gone: they are for the software device.
const KILLED: [&str; 3] = ["latency write", "latency read", "bandwidth send"];
const KILLED_ON_SOFT: [&str; 2] = ["latency send --transport ud", "bandwidth send --transport ud"];

/// Whoever is left must say so, long before the time of the measurement is over.
const MIDDLE: &str = r#"
log=/dev/shm/perf.$$.log
begin() {
  serve > $log
  "$program" $what $here --duration 1000 localhost &
  client=$!
  until grep -q ' over ' $log; do kill -0 $client || fail "to begin: $what"; sleep .05; done
  sleep .3
}
shift 4
for what; do
  begin
  kill -KILL $server || fail "the server: $what"
  wait $client && fail "to notice that the server has died: $what"
  begin
  kill -KILL $client || fail "the client: $what"
  wait $server && fail "to notice that the client has died: $what"
done
rm $log
serve --clients 3
until echo 'GET / HTTP/1.1' 2> /dev/null > /dev/tcp/127.0.0.1/18516; do
  kill -0 $server || fail "to listen"
  sleep .05
done
printf '\0\10ibvperf\2' > /dev/tcp/127.0.0.1/18516
"$program" latency send $here --iters $iters localhost || fail "to serve after others"
wait $server && fail "to say that others were no clients"
picture=/dev/shm/perf.$$.svg
"$program" latency send $here --sizes 8..64 --iters $iters --svg $picture || fail "to draw"
grep -q '</svg>' $picture || fail "to end the picture"
rm $picture
"#;

/// The runs with a device for either side each, or with whichever the program takes.
pub(super) fn runs(
    program: &Program,
    iters: &str,
    places: &[(&str, [Option<&str>; 2])],
) -> Vec<Run> {
    let mut runs = vec![alone(program, &[])];
    for &(place, devices) in places {
        let measured = MEASURED.as_flattened();
        runs.push(by_script(
            program,
            &format!("numbers, {place}"),
            MEASURE,
            iters,
            devices,
            measured,
        ));
    }
    if let Some(&(_, devices)) = places.first() {
        let is_soft = devices == [None, None];
        let more = if is_soft { &KILLED_ON_SOFT[..] } else { &[] };
        let killed = [&KILLED[..], more].concat();
        runs.push(by_script(program, "ends in the middle", MIDDLE, iters, devices, &killed));
    }
    runs
}

fn by_script(
    program: &Program,
    what: &str,
    script: &str,
    iters: &str,
    [server, client]: [Option<&str>; 2],
    words: &[&str],
) -> Run {
    let option =
        |device: Option<&str>| device.map_or(String::new(), |name| format!("--device {name}"));
    let script = format!("{FUNCTIONS}{script}");
    let mut command = ["bash", "-c", &script, "bash"].map(OsString::from).to_vec();
    command.push(OsString::from(&program.path));
    command.extend([iters, &option(client), &option(server)].map(OsString::from));
    command.extend(words.iter().map(OsString::from));
    Run { name: format!("{}, {what}", program.name), command }
}

/// Looks at the numbers of those that passed.
pub(super) fn check(ended: &mut [Ended], iters: u64) {
    let measured = |ended: &&mut Ended| ended.passed && ended.name.starts_with(NUMBERS);
    for ended in ended.iter_mut().filter(measured) {
        if let Err(error) = check_output(&ended.output, iters) {
            println!("{}: {error:#}", ended.name);
            ended.passed = false;
        }
    }
}

/// That all was measured, and that the numbers are possible ones.
fn check_output(output: &str, iters: u64) -> Result<()> {
    let mut lines = output.lines().filter(|line| line.starts_with('{'));
    for what in MEASURED {
        let line = lines.next().with_context(|| format!("{what:?} is missing"))?;
        check_line(line, what, iters).with_context(|| format!("{what:?}: {line}"))?;
    }
    ensure!(lines.next().is_none(), "there is more than was measured");
    Ok(())
}

fn check_line(line: &str, what: [&str; 3], iters: u64) -> Result<()> {
    let json: Value = serde_json::from_str(line).context("it is no JSON")?;
    for (field, value) in ["kind", "operation", "transport"].into_iter().zip(what) {
        ensure!(json[field] == value, "{field} is another one");
    }
    let [kind, operation, transport] = what;
    let is_atomic = ["fetch-add", "compare-swap"].contains(&operation);
    let sizes: &[u64] = if is_atomic { &[8] } else { &[64, 128] };
    let results = json["results"].as_array().context("there are no results")?;
    let measured = results.iter().map(|result| result["size"].as_u64());
    ensure!(measured.eq(sizes.iter().copied().map(Some)), "the sizes are others");
    for (result, size) in results.iter().zip(sizes) {
        let is_number = |name: &str, number: u64| result[name].as_u64() == Some(number);
        if kind == "latency" {
            ensure!(is_number("operations", iters), "there are other numbers of operations");
            ensure!(transport != "rc" || is_number("lost", 0), "something was lost");
            let mut least = 0.0;
            for name in ["min", "p50", "p90", "p99", "p99.9", "max"] {
                let micros = result[name].as_f64().with_context(|| format!("no {name}"))?;
                ensure!(micros > 0.0 && micros >= least, "{name} is too small");
                least = micros;
            }
        } else {
            let operations = iters * QUEUE_PAIRS;
            ensure!(is_number("operations", operations), "there are other numbers of operations");
            ensure!(is_number("bytes", operations * size), "there are other numbers of bytes");
            match transport {
                "rc" => ensure!(is_number("arrived", operations), "not all arrived"),
                _ if operation == "write" => ensure!(result["arrived"].is_null(), "who knows?"),
                _ => {
                    let arrived = result["arrived"].as_u64();
                    ensure!(arrived.is_some_and(|n| n <= operations), "too many arrived");
                }
            }
            let number = |name: &str| result[name].as_f64().filter(|&number| number > 0.0);
            let rate = number("MB_per_s").zip(number("seconds")).context("there is no rate")?;
            let bytes = rate.0 * 1e6 * rate.1;
            let is_right = (bytes / (operations * size) as f64 - 1.0).abs() < 1e-6;
            ensure!(is_right, "the rate is not that of the bytes");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::pair::tests::try_out;
    use super::*;
    use serde_json::json;

    /// What a measurement writes whose numbers are possible.
    fn good([kind, operation, transport]: [&str; 3]) -> Value {
        let is_atomic = operation.contains('-');
        let sizes = if is_atomic { vec![8] } else { vec![64, 128] };
        let result = |size: u64| match kind {
            "latency" => json!({
                "size": size, "operations": 7, "lost": 0,
                "min": 1, "p50": 1, "p90": 2.5, "p99": 3, "p99.9": 3, "max": 3,
            }),
            _ => json!({
                "size": size, "operations": 21, "bytes": 21 * size, "seconds": 2,
                "MB_per_s": (21 * size) as f64 / 2e6,
                "arrived": if (operation, transport) == ("write", "uc") { json!(null) } else { json!(21) },
            }),
        };
        let results: Vec<_> = sizes.into_iter().map(result).collect();
        json!({ "kind": kind, "operation": operation, "transport": transport, "results": results })
    }

    fn output(change: impl Fn(usize, &mut Value)) -> String {
        let lines = MEASURED.iter().enumerate().map(|(place, &what)| {
            let mut value = good(what);
            change(place, &mut value);
            format!("{value}\n")
        });
        ["listening\n".to_owned()].into_iter().chain(lines).collect()
    }

    #[test]
    fn only_possible_numbers_pass() {
        let passes = |change: &dyn Fn(usize, &mut Value)| {
            let name = format!("{NUMBERS}, somewhere");
            let time = std::time::Duration::ZERO;
            let mut ended = [Ended { name, passed: true, output: output(change), time }];
            check(&mut ended, 7);
            ended[0].passed
        };
        assert!(passes(&|_, _| ()));
        // Latency of sends, bandwidth of writes over a reliable and over an unreliable connection, of datagrams.
        for (place, field, value) in [
            (0, "p90", json!(0.5)),
            (0, "max", json!(2.9)),
            (0, "min", json!(0)),
            (0, "lost", json!(1)),
            (0, "operations", json!(8)),
            (0, "size", json!(9)),
            (0, "p99", json!("3")),
            (11, "operations", json!(20)),
            (11, "arrived", json!(20)),
            (11, "MB_per_s", json!(9)),
            (12, "arrived", json!(21)),
            (10, "arrived", json!(22)),
        ] {
            let change = |at: usize, json: &mut Value| {
                if at == place {
                    json["results"][0][field] = value.clone();
                }
            };
            assert!(!passes(&change), "{place} {field}");
        }
        assert!(passes(&|at, json| if at == 10 {
            json["results"][0]["arrived"] = json!(3)
        }));
        assert!(!passes(&|at, json| if at == 3 {
            json["kind"] = json!("bandwidth")
        }));
        assert!(!passes(&|at, json| if at == 3 {
            json["results"] = json!([])
        }));
        let whole = output(|_, _| ());
        assert!(check_output(&whole, 7).is_ok());
        assert!(check_output(whole.trim_end().rsplit_once('\n').unwrap().0, 7).is_err());
        assert!(check_output(&format!("{whole}{{}}\n"), 7).is_err());
    }

    #[test]
    fn each_measurement_has_a_client_and_the_server_counts() {
        let two = [Some("a"), Some("b")];
        let run = |program: &Program| {
            by_script(program, "", MEASURE, "7", two, &["latency", "send", "ud"])
        };
        let (passed, lines) = try_out("echo \"$@\"", run);
        let client =
            "latency send --transport ud --device b --sizes 64..128 --warmup 10 --iters 7 --json - localhost";
        assert_eq!(lines, [client, "serve --device a --clients 1"]);
        assert!(passed);
        assert!(!try_out("[ $1 = serve ]", run).0);
        assert!(!try_out("[ $1 = latency ]", run).0);
        assert!(!try_out("[ $1 = serve ] && exec sleep 1000", run).0);
    }
}
