//! How the examples are run that connect through the connection manager: everywhere, and with a look at what they do.

use std::ffi::OsString;

use super::pair::{Connecting, ADDRESS, LISTENING, SOURCE};
use crate::artifacts::Program;
use crate::script::Run;
use crate::vm::Network;

/// The runs of one in a guest with these networks; `None` if it is an example of another kind.
pub(super) fn runs(program: &Program, iters: &str, networks: &[Network]) -> Option<Vec<Run>> {
    let everywhere = |manner: &str, server: &[&str], client: &[&str]| {
        let server = [&["--bind", ADDRESS], server].concat();
        let client = [&["--bind", SOURCE, ADDRESS], client].concat();
        Connecting { manner, server: &server, client: &client }.runs(program, networks)
    };
    let mut file = None;
    let mut runs = match program.name.as_str() {
        "rdmacm_connect" => [
            everywhere("event loop serves, ", &["--event-loop"], &["--iters", iters]),
            everywhere("event loop calls, ", &[], &["--iters", iters, "--event-loop"]),
        ]
        .concat(),
        "rdmacm_async" => {
            everywhere("", &["--clients", "4"], &["--clients", "4", "--iters", iters])
        }
        "cm_time" => {
            let mut runs = everywhere("", &[], &["--connections", iters]);
            runs.push(by_script(program, "its numbers", NUMBERS, Some(iters)));
            runs
        }
        "file_copy" => {
            // It takes more chunks than are under way at a time.
            file = Some("Cargo.lock");
            let server = ["--into", "/dev/shm", "--overwrite", "--chunk", "1"];
            let mut runs = everywhere("", &server, file.as_slice());
            runs.push(by_script(program, "its files", FILES, None));
            runs.push(by_script(program, "ends in the middle", MIDDLE, None));
            runs
        }
        _ => return None,
    };
    runs.push(by_script(program, "nobody there", NOBODY, file));
    Some(runs)
}

fn by_script(program: &Program, what: &str, script: &str, argument: Option<&str>) -> Run {
    let script = format!("{FUNCTIONS}{LISTENING}}}\n{script}");
    let words = ["bash", "-c", &script, "bash"].map(OsString::from);
    let path = OsString::from(&program.path);
    let command = words.into_iter().chain([path]).chain(argument.map(OsString::from)).collect();
    Run { name: format!("{}, {what}", program.name), command }
}

/// What the scripts share. The last function, which starts a server, is to end with [`LISTENING`].
const FUNCTIONS: &str = r#"
export RUST_LIB_BACKTRACE=0
program=$1
shift
fail() { echo "failed: $*"; exit 1; }
serve() {
  "$program" --bind 10.7.0.1 "$@" &
  server=$!
"#;

/// A client that finds nobody must say so, and at once.
const NOBODY: &str = r#"
output=$(timeout 20 "$program" 10.7.0.1 "$@" 2>&1) && fail "there was somebody"
echo "$output"
grep -q "nobody listens on that port" <<< "$output" || fail "it does not say why"
"#;

/// There must be two rates, and for each phase times that do not fall from one quantile to the next.
const NUMBERS: &str = r#"
serve
output=$("$program" 10.7.0.1 --connections $1) || { kill $server; fail "the client"; }
wait $server || fail "the server"
echo "$output"
awk '
  /onnections\/s$/ && $1 > 0 { rates++ }
  function rises(n) { return $(NF - n) <= $(NF - n + 1) }
  NF > 5 && $NF > 0 && $NF ~ /^[0-9.]+$/ && rises(1) && rises(2) && rises(3) && rises(4) { phases++ }
  END { exit !(rates == 2 && phases == 6) }
' <<< "$output" || fail "it does not print all numbers"
"#;

/// Files must arrive as they are, or be refused.
const FILES: &str = r#"
cd $(mktemp -d -p /dev/shm) && mkdir out || exit
send() { "$program" 10.7.0.1 "$@"; }
sizes="0 1 65536 1048577 3145745"
serve --into out --files 5
for size in $sizes; do
  head -c $size /dev/urandom > $size
  send $size || { kill $server; fail "to send $size bytes"; }
done
wait $server || fail "to receive"
for size in $sizes; do cmp $size out/$size || fail "to copy"; done

serve --into out --overwrite --chunk 1
send 1048577 --as 0 && wait $server && cmp 1048577 out/0 || fail "to replace a file, in small chunks"

serve --into out
send 65536 --as 1 && fail "to keep a file"
wait $server && fail "to say that a file was refused"
cmp 1 out/1 || fail "to keep a file as it is"

serve --into out
send 65536 --as ../elsewhere && fail "to refuse a path"
wait $server && fail "to say that a path was refused"
[ -e elsewhere ] && fail "to keep away from other folders"
exit 0
"#;

/// What ends in the middle must be told by both sides, and leave no file.
const MIDDLE: &str = r#"
cd $(mktemp -d -p /dev/shm) && mkdir out || exit
# Begins to send a file that is too long to arrive, and waits until a part of it has.
begin() {
  serve --into out
  truncate -s 100G long
  "$program" 10.7.0.1 long &
  client=$!
  until [ "$(ls -A out)" ]; do kill -0 $client || fail "to begin"; sleep .02; done
}
begin
kill -KILL $client
wait $server && fail "to notice that the sender has died"
[ -z "$(ls -A out)" ] || fail "to remove a part of a file"
begin
truncate -s 0 long
wait $client && fail "to notice that there is not all of the file"
wait $server && fail "to notice that not all of the file came"
[ -z "$(ls -A out)" ] || fail "to remove a part of a file"
begin
kill -KILL $server
wait $client && fail "to notice that the receiver has died"
exit 0
"#;

#[cfg(test)]
mod tests {
    use super::super::pair::tests::try_out;
    use super::*;

    /// Whether a client passes that finds nobody.
    fn finds_nobody(client: &str) -> bool {
        try_out(client, |program| by_script(program, "", NOBODY, None)).0
    }

    #[test]
    fn a_client_that_finds_nobody_says_so() {
        assert!(finds_nobody("echo 'nobody listens on that port' >&2; exit 1"));
        assert!(!finds_nobody("echo 'nobody listens on that port' >&2"));
        assert!(!finds_nobody("echo 'no such device' >&2; exit 1"));
    }

    #[test]
    fn each_run_has_a_name_of_its_own() {
        for name in ["rdmacm_connect", "rdmacm_async", "cm_time", "file_copy"] {
            let program = Program { name: name.into(), path: "/x".into() };
            let runs = runs(&program, "7", Network::of_kernel(7)).unwrap();
            let mut names: Vec<_> = runs.iter().map(|run| &run.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), runs.len());
        }
    }
}
