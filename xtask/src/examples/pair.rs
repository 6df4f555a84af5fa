//! A server and its client: two processes of a program, in one guest.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::artifacts::Program;
use crate::script::Run;
use crate::vm::{quoted, Network};

/// Waits until an address is listened on: the connection manager refuses a client that is early. A server that has ended
/// instead has failed, whatever it says.
pub(super) const LISTENING: &str = "
until rdma resource show cm_id | grep -q LISTEN; do
  kill -0 $! 2> /dev/null || exit 1
  sleep .05
done
";

/// A server that the client has failed to reach may wait for ever.
const EITHER_FAILS: &[u8] = b" || { status=$?; kill $!; exit $status; }\nwait $!\n";

/// What the two processes of a program are told that connect through the connection manager. [`ADDRESS`] and [`SOURCE`]
/// stand for addresses.
pub(super) struct Connecting<'a> {
    /// What is between the program's name and the place in the name of the run.
    pub(super) manner: &'a str,
    pub(super) server: &'a [&'a str],
    pub(super) client: &'a [&'a str],
}

/// Stands for the address that the server listens on.
pub(super) const ADDRESS: &str = "ADDRESS";
/// Stands for the address that the client connects from.
pub(super) const SOURCE: &str = "SOURCE";

/// Where a server and a client are.
struct Place {
    name: &'static str,
    /// What the guest must have for it.
    network: Option<Network>,
    /// The address of the server, and what enters its namespace.
    server: (&'static str, &'static [&'static str]),
    /// The same of the client.
    client: (&'static str, &'static [&'static str]),
}

const PLACES: [Place; 3] = [
    Place {
        name: "one device",
        network: None,
        server: ("10.7.0.1", &[]),
        client: ("10.7.0.1", &[]),
    },
    Place {
        name: "two devices",
        network: Some(Network::Wire),
        server: ("10.8.0.1", &[]),
        client: ("10.8.0.2", &[]),
    },
    Place {
        name: "two namespaces",
        network: Some(Network::Namespaces),
        server: ("10.9.0.1", &["ip", "netns", "exec", "a"]),
        client: ("10.9.0.2", &["ip", "netns", "exec", "b"]),
    },
];

impl Connecting<'_> {
    /// The program in every place that a guest with these networks has.
    pub(super) fn runs(&self, program: &Program, networks: &[Network]) -> Vec<Run> {
        let is_there =
            |place: &&Place| place.network.is_none_or(|network| networks.contains(&network));
        PLACES.iter().filter(is_there).map(|place| self.run(program, place)).collect()
    }

    fn run(&self, program: &Program, place: &Place) -> Run {
        let ((address, server), (source, client)) = (place.server, place.client);
        let command = |enter: &[&str], words: &[&str]| {
            let words = words.iter().map(|&word| match word {
                ADDRESS => address,
                SOURCE => source,
                other => other,
            });
            let enter = enter.iter().map(OsString::from);
            let program = OsString::from(&program.path);
            enter.chain([program]).chain(words.map(OsString::from)).collect()
        };
        let commands = [command(server, self.server), command(client, self.client)];
        run(program, &format!("{}{}", self.manner, place.name), LISTENING.as_bytes(), commands)
    }
}

/// A program whose two processes find each other over TCP, each on a device of its own choice or of this name.
pub(super) fn over_tcp(
    program: &Program,
    manner: &str,
    [server, client]: [Option<&str>; 2],
    arguments: &[&str],
) -> Run {
    let command = |device: Option<&str>, host: &[&str]| {
        let device = device.map_or(vec![], |device| vec!["--device", device]);
        let words = [&device[..], arguments, host].concat();
        let program = OsString::from(&program.path);
        [program].into_iter().chain(words.into_iter().map(OsString::from)).collect()
    };
    run(program, manner, b"", [command(server, &[]), command(client, &["localhost"])])
}

/// Starts the server, then what waits for it, then the client; fails if either does.
fn run(program: &Program, manner: &str, ready: &[u8], commands: [Vec<OsString>; 2]) -> Run {
    let [server, client] = commands
        .map(|command| command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(&b' '));
    let script = [&server, &b" &\n"[..], ready, &client, EITHER_FAILS].concat();
    Run {
        name: format!("{}, {manner}", program.name),
        command: vec!["bash".into(), "-c".into(), OsString::from_vec(script)],
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    /// Makes a program out of lines of `sh`, and runs it as told; returns whether that succeeded, and the lines that it
    /// wrote, sorted.
    pub(in crate::examples) fn try_out(
        lines: &str,
        run: impl Fn(&Program) -> Run,
    ) -> (bool, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it's a program");
        std::fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let run = run(&Program { name: "program".into(), path });
        let out = Command::new(&run.command[0]).args(&run.command[1..]).output().unwrap();
        let mut lines: Vec<String> =
            String::from_utf8(out.stdout).unwrap().lines().map(String::from).collect();
        lines.sort_unstable();
        (out.status.success(), lines)
    }

    fn tcp(program: &Program) -> Run {
        over_tcp(program, "", [Some("a"), Some("b")], &["--iters", "7"])
    }

    #[test]
    fn the_client_gets_the_host() {
        let (success, lines) = try_out("echo \"$@\"", tcp);
        assert_eq!(lines, ["--device a --iters 7", "--device b --iters 7 localhost"]);
        assert!(success);
    }

    #[test]
    fn the_failure_of_either_process_counts() {
        assert!(!try_out("[ $2 = a ]", tcp).0);
        assert!(!try_out("[ $2 = b ]", tcp).0);
        // A server whose client has failed may wait for ever.
        assert!(!try_out("[ $2 = a ] && exec sleep 1000", tcp).0);
    }

    const CONNECTING: Connecting<'_> = Connecting {
        manner: "",
        server: &["server", ADDRESS],
        client: &["client", SOURCE, ADDRESS],
    };

    #[test]
    fn a_program_runs_in_every_place_there_is() {
        let program = Program { name: "x".into(), path: "/x".into() };
        let names = |networks: &[Network]| -> Vec<String> {
            CONNECTING.runs(&program, networks).into_iter().map(|run| run.name).collect()
        };
        assert_eq!(names(&[]), ["x, one device"]);
        assert_eq!(names(&[Network::Wire]), ["x, one device", "x, two devices"]);
        assert_eq!(names(Network::of_kernel(7)).len(), PLACES.len());
    }

    #[test]
    fn addresses_take_the_place_of_their_names() {
        let program = Program { name: "x".into(), path: "/x".into() };
        let runs = CONNECTING.runs(&program, Network::of_kernel(7));
        let script = runs[2].command[2].to_str().unwrap();
        assert!(
            script.contains("'ip' 'netns' 'exec' 'a' '/x' 'server' '10.9.0.1' &\n")
                && script
                    .contains("'ip' 'netns' 'exec' 'b' '/x' 'client' '10.9.0.2' '10.9.0.1' ||"),
            "{script}"
        );
    }

    #[test]
    fn a_server_that_never_listens_has_failed() {
        let in_one_place = |program: &Program| CONNECTING.runs(program, &[]).remove(0);
        assert!(!try_out("[ $1 = client ]", in_one_place).0);
        assert!(!try_out("exit 0", in_one_place).0);
    }
}
