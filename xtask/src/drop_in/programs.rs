//! The programs that must run on the software device as they are packaged, and what each must say.

use std::net::Ipv4Addr;

use anyhow::{bail, ensure, Context, Result};

use super::session::{addr_for, free_port, group_for, Place, Waiting};
use crate::host::{self, Need};
use crate::perftest::figures;

/// The packages of Debian that they are in.
const UTILS: &str = "ibverbs-utils";
const PERFTEST: &str = "perftest";
const CM_UTILS: &str = "rdmacm-utils";

/// One run of a program, or of two of it.
pub(super) struct Case {
    program: &'static str,
    kind: Kind,
}

enum Kind {
    /// Looks at devices.
    Look { options: &'static str, judge: fn(&str) -> Result<()> },
    /// A message to and fro between two processes, which the server compares with what it must be at the end.
    Pingpong { size: u64, iters: u64, options: &'static str },
    /// Measures, between two processes.
    Measure { size: u64, iters: u64, options: &'static str },
    /// Connects by the connection manager: how the server begins, how the client, and what both are told.
    Connect { server: &'static str, client: &'static str, options: &'static str, judge: Judge },
}

/// Looks at what a server and its client wrote.
type Judge = fn(&[String; 2]) -> Result<()>;

/// Stands for the server's address where the connection manager is used.
const ADDR: &str = "ADDR";
/// Stands for its port there.
const PORT: &str = "PORT";
/// Stands for a multicast group that no other run has.
const GROUP: &str = "GROUP";

const fn look(program: &'static str, options: &'static str, judge: fn(&str) -> Result<()>) -> Case {
    Case { program, kind: Kind::Look { options, judge } }
}

const fn pingpong(program: &'static str, size: u64, iters: u64, options: &'static str) -> Case {
    Case { program, kind: Kind::Pingpong { size, iters, options } }
}

const fn measure(program: &'static str, size: u64, iters: u64, options: &'static str) -> Case {
    Case { program, kind: Kind::Measure { size, iters, options } }
}

/// The roles begin with the names of the programs, of which `program` is one.
const fn connect(
    program: &'static str,
    [server, client]: [&'static str; 2],
    options: &'static str,
    judge: Judge,
) -> Case {
    Case { program, kind: Kind::Connect { server, client, options, judge } }
}

const RPING: [&str; 2] = ["rping -s", "rping -c"];
const UCMATOSE: [&str; 2] = ["ucmatose -b ADDR", "ucmatose -s ADDR"];
const UDADDY: [&str; 2] = ["udaddy -b ADDR", "udaddy -s ADDR"];
const MCKEY: [&str; 2] = ["mckey -b ADDR", "mckey -s"];
/// Of several members each gets a copy, so that only one receives; who sends need not.
const MCKEY_SEND_ONLY: [&str; 2] = ["mckey -b ADDR", "mckey -o -s"];
const RDMA_SERVER: [&str; 2] = ["rdma_server", "rdma_client"];

const MIB: u64 = 1 << 20;
/// The size that atomics have.
const WORD: u64 = 8;

/// `-e` sleeps until there is an event, `-t` takes timestamps, and so polls by the extended interface, `-N` posts by it. With `-e`
/// and `-t` at once `ibv_rc_pingpong` takes an event for a failure whose completion it has seen already. perftest's `-R`, by the
/// connection manager, is left out: its client may come before the server listens, and then uses what it has freed.
pub(super) const CASES: [Case; 42] = [
    look("ibv_devices", "", devices),
    look("ibv_devinfo", "-v", devinfo),
    pingpong("ibv_rc_pingpong", 4096, 1000, ""),
    pingpong("ibv_rc_pingpong", 1, 500, ""),
    pingpong("ibv_rc_pingpong", MIB, 20, ""),
    pingpong("ibv_rc_pingpong", 65536, 100, "-m 256"),
    pingpong("ibv_rc_pingpong", 4096, 500, "-e"),
    pingpong("ibv_rc_pingpong", 4096, 500, "-t"),
    pingpong("ibv_rc_pingpong", 4096, 500, "-N"),
    pingpong("ibv_rc_pingpong", MIB, 20, "-N -t"),
    pingpong("ibv_uc_pingpong", 4096, 500, ""),
    pingpong("ibv_uc_pingpong", 1, 500, "-e"),
    pingpong("ibv_uc_pingpong", 65536, 50, ""),
    pingpong("ibv_ud_pingpong", 2048, 500, ""),
    pingpong("ibv_ud_pingpong", 1, 500, "-e"),
    pingpong("ibv_srq_pingpong", 4096, 500, ""),
    pingpong("ibv_srq_pingpong", 1, 500, "-e"),
    pingpong("ibv_srq_pingpong", 65536, 50, "-q 3"),
    measure("ib_write_bw", 65536, 200, ""),
    measure("ib_write_bw", 4096, 320, "-l 8 -Q 8"),
    measure("ib_write_bw", 8192, 100, "-q 4"),
    measure("ib_write_bw", 4096, 100, "-c UC"),
    measure("ib_read_bw", 65536, 200, ""),
    measure("ib_send_bw", 65536, 200, ""),
    measure("ib_send_bw", 4096, 200, "-b"),
    measure("ib_send_lat", 2, 500, ""),
    measure("ib_send_lat", 32, 300, "-e -I 64"),
    measure("ib_send_lat", 2048, 300, "-c UC"),
    measure("ib_send_lat", 2, 300, "-c UD"),
    measure("ib_write_lat", 2, 300, ""),
    measure("ib_read_lat", 2, 300, ""),
    measure("ib_atomic_lat", WORD, 300, "-A FETCH_AND_ADD"),
    measure("ib_atomic_bw", WORD, 300, "-A CMP_AND_SWAP"),
    connect("rping", RPING, "-v -V -C 20 -a ADDR -p PORT", pinged),
    connect("rping", RPING, "-v -V -C 20 -S 60000 -q -a ADDR -p PORT", pinged),
    connect("ucmatose", UCMATOSE, "-p PORT", completed),
    connect("ucmatose", UCMATOSE, "-p PORT -c 16 -C 10 -S 65536 -m", completed),
    connect("udaddy", UDADDY, "", completed),
    connect("udaddy", UDADDY, "-c 8 -C 10 -S 2000", completed),
    connect("mckey", MCKEY, "-m GROUP", joined),
    connect("mckey", MCKEY_SEND_ONLY, "-m GROUP -C 40 -S 2000", joined),
    connect("rdma_server", RDMA_SERVER, "-s ADDR -p PORT", ended),
];

/// Installs what is missing.
pub(super) fn need() -> Result<()> {
    host::need(&CASES.each_ref().map(|case| Need::executable(case.program, case.package())))
}

impl Case {
    /// Whether the program is one of rdma-core's.
    pub(super) fn is_of_rdma_core(&self) -> bool {
        self.package() != PERFTEST
    }

    fn package(&self) -> &'static str {
        match self.kind {
            Kind::Look { .. } | Kind::Pingpong { .. } => UTILS,
            Kind::Measure { .. } => PERFTEST,
            Kind::Connect { .. } => CM_UTILS,
        }
    }

    /// What is run as the server, or alone, and what as the client; [`ADDR`] and [`PORT`] stand for the server's.
    fn commands(&self) -> [String; 2] {
        let program = self.program;
        match self.kind {
            Kind::Look { options, .. } => [format!("{program} {options}"), String::new()],
            Kind::Pingpong { size, iters, options } => {
                let both = format!("{program} -g 1 -c -s {size} -n {iters} {options} -p PORT");
                [both.clone(), both + " ADDR"]
            }
            // It does not have to be told that the processor's speed may change.
            Kind::Measure { size, iters, options } => {
                let size = if size == WORD { String::new() } else { format!("-s {size} ") };
                let both = format!("{program} -F -x 1 {size}-n {iters} {options} -p PORT");
                [both.clone(), both + " ADDR"]
            }
            Kind::Connect { server, client, options, .. } => {
                [server, client].map(|role| format!("{role} {options}"))
            }
        }
    }

    /// What it is called where its result is told.
    pub(super) fn name(&self) -> String {
        let [server, _] = self.commands();
        let is_chosen = |word: &&str| [ADDR, PORT, GROUP].contains(word);
        let mut words = server.split_whitespace().peekable();
        let mut named = Vec::new();
        while let Some(word) = words.next() {
            // Without the options that are different each time, either.
            if words.next_if(is_chosen).is_none() {
                named.push(word);
            }
        }
        named.join(" ")
    }

    /// Runs it; an error says what was wrong.
    pub(super) fn run(&self, place: &Place<'_>) -> Result<()> {
        let port = free_port().context("there is no free port")?;
        let by_cm = matches!(self.kind, Kind::Connect { .. });
        let addr = if by_cm { addr_for(port) } else { Ipv4Addr::LOCALHOST };
        let words = |command: String| -> Vec<String> {
            let words = command.split_whitespace().map(|word| match word {
                ADDR => addr.to_string(),
                PORT => port.to_string(),
                GROUP => group_for(port).to_string(),
                other => other.into(),
            });
            words.collect()
        };
        let [server, client] = self.commands().map(words);
        if let Kind::Look { judge, .. } = self.kind {
            let output = place.run(&server)?;
            return judge(&output).with_context(|| output);
        }
        let waiting = if by_cm { Waiting::Device(addr) } else { Waiting::Tcp(port) };
        let outputs = place.run_pair(&server, &client, &waiting)?;
        self.judge(&outputs)
            .with_context(|| format!("server:\n{}\nclient:\n{}", outputs[0], outputs[1]))
    }

    fn judge(&self, outputs: &[String; 2]) -> Result<()> {
        match self.kind {
            Kind::Look { .. } => Ok(()),
            Kind::Pingpong { size, iters, options } => {
                pingponged(outputs, size, iters)?;
                let is_timed =
                    |output: &String| output.contains("Average receive completion clock cycles");
                ensure!(
                    !options.contains("-t") || outputs.iter().all(is_timed),
                    "there is no timestamp"
                );
                Ok(())
            }
            // Of a measurement only the client's counts; the server has none, or half of one.
            Kind::Measure { size, iters, .. } => measured(&outputs[1], size, iters),
            Kind::Connect { judge, .. } => judge(outputs),
        }
    }
}

/// The device is in the list, with an identifier.
fn devices(output: &str) -> Result<()> {
    let line = line_with(output, "soft0")?;
    let guid = line.split_whitespace().nth(1).context("it has no GUID")?;
    let guid = u64::from_str_radix(guid, 16).with_context(|| format!("{guid} is no GUID"))?;
    ensure!(guid != 0, "its GUID is 0");
    Ok(())
}

/// Its port is active on Ethernet, and has an address of RoCE version 2.
fn devinfo(output: &str) -> Result<()> {
    line_with(output, "hca_id:\tsoft0")?;
    line_with(output, "PORT_ACTIVE")?;
    ensure!(line_with(output, "link_layer:")?.contains("Ethernet"), "it is not of Ethernet");
    let gid = line_with(output, "GID[  1]:")?;
    ensure!(gid.contains("::ffff:127.0.0.") && gid.ends_with("RoCE v2"), "its GID is {gid}");
    Ok(())
}

fn line_with<'o>(output: &'o str, text: &str) -> Result<&'o str> {
    output.lines().find(|line| line.contains(text)).with_context(|| format!("there is no `{text}`"))
}

/// Each has done as much as it was told, with the other, and the data was right.
fn pingponged(outputs: &[String; 2], size: u64, iters: u64) -> Result<()> {
    let addresses = |output: &str, whose: &str| -> Result<Vec<String>> {
        let start = format!("{whose} address:");
        let lines: Vec<String> = output
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix(&start).map(words))
            .collect();
        ensure!(!lines.is_empty(), "there is no {whose} address");
        Ok(lines)
    };
    for output in outputs {
        line_with(output, &format!("{} bytes in", 2 * size * iters))?;
        line_with(output, &format!("{iters} iters in"))?;
        ensure!(!output.contains("invalid data"), "the data was wrong");
    }
    for (one, other) in [(0, 1), (1, 0)] {
        let (here, there) =
            (addresses(&outputs[one], "local")?, addresses(&outputs[other], "remote")?);
        ensure!(here == there, "they talked to others: {here:?}, {there:?}");
    }
    Ok(())
}

/// The words of a line, without the punctuation behind them, which is not the same everywhere.
fn words(line: &str) -> String {
    let words = line.split_whitespace().map(|word| word.trim_end_matches([',', ':']));
    words.collect::<Vec<_>>().join(" ")
}

/// There are numbers, for this size and at least as many operations.
fn measured(output: &str, size: u64, iters: u64) -> Result<()> {
    figures::of_perftest(output)?;
    let is_row = |line: &&str| {
        let mut numbers = line.split_whitespace().map_while(|word| word.parse::<u64>().ok());
        numbers.next() == Some(size) && numbers.next().is_some_and(|count| count >= iters)
    };
    if !output.lines().any(|line| is_row(&line)) {
        bail!("there is no row for {iters} operations of {size} bytes");
    }
    Ok(())
}

/// What the client sent came back, and is what the server has seen: as many as `-C` says.
fn pinged(outputs: &[String; 2]) -> Result<()> {
    const COUNT: usize = 20;
    let data = |output: &str, start: &str| -> Vec<String> {
        output.lines().filter_map(|line| line.strip_prefix(start).map(String::from)).collect()
    };
    let [seen, back] = [data(&outputs[0], "server ping data: "), data(&outputs[1], "ping data: ")];
    ensure!(seen == back, "the server has seen other data than the client");
    ensure!(back.len() == COUNT, "there are {} pings and not {COUNT}", back.len());
    for (number, data) in back.iter().enumerate() {
        let letter = char::from(b'A' + number as u8);
        ensure!(
            data.starts_with(&format!("rdma-ping-{number}: {letter}")),
            "this is no ping: {data}"
        );
    }
    Ok(())
}

/// Both have moved their data, and found nothing wrong.
fn completed(outputs: &[String; 2]) -> Result<()> {
    for output in outputs {
        for line in ["data transfers complete", "test complete", "return status 0"] {
            line_with(output, line)?;
        }
    }
    Ok(())
}

/// Both have joined a group, and what one has sent to it has come to the other.
fn joined(outputs: &[String; 2]) -> Result<()> {
    let group = |output: &str| -> Result<String> {
        let line = line_with(output, "mckey: joined dgid: ::ffff:239.")?;
        Ok(line.into())
    };
    ensure!(group(&outputs[0])? == group(&outputs[1])?, "they have joined different groups");
    line_with(&outputs[0], "receiving data transfers")?;
    line_with(&outputs[1], "initiating data transfers")?;
    completed(outputs)
}

/// Both came to their end.
fn ended(outputs: &[String; 2]) -> Result<()> {
    line_with(&outputs[0], "rdma_server: end 0")?;
    line_with(&outputs[1], "rdma_client: end 0")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_has_a_name_of_its_own() {
        let mut names: Vec<String> = CASES.iter().map(Case::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
    }

    #[test]
    fn a_device_has_a_name_and_an_identifier() {
        let list = |line| {
            format!("    device          \t   node GUID\n    ------          \t----------------\n{line}")
        };
        devices(&list("    soft0           \te6929f58bfaad800\n")).unwrap();
        for line in [
            "",
            "    rxe0   \te6929f58bfaad800\n",
            "    soft0   \t0000000000000000\n",
            "    soft0\n",
        ] {
            assert!(devices(&list(line)).is_err(), "{line}");
        }
    }

    #[test]
    fn a_port_is_active_and_has_an_address() {
        let info =
            "hca_id:\tsoft0\n\t\t\tstate:\t\t\tPORT_ACTIVE (4)\n\t\t\tlink_layer:\t\tEthernet\n\
            \t\t\tGID[  0]:\t\tfe80::1, RoCE v2\n\t\t\tGID[  1]:\t\t::ffff:127.0.0.3, RoCE v2\n";
        devinfo(info).unwrap();
        for (right, wrong) in [
            ("soft0", "rxe0"),
            ("ACTIVE", "DOWN"),
            ("Ethernet", "InfiniBand"),
            ("3, RoCE v2", "3, RoCE v1"),
        ] {
            assert!(devinfo(&info.replace(right, wrong)).is_err(), "{wrong}");
        }
    }

    /// What one of two processes writes: its number, and the other's.
    fn pingpong_output(here: u32, there: u32) -> String {
        format!(
            "  local address:  LID 0x0000, QPN {here}, PSN 1: GID ::1\n  \
               remote address: LID 0x0000, QPN {there}, PSN 1, GID ::1\n\
             200 bytes in 0.01 seconds = 0.65 Mbit/sec\n10 iters in 0.01 seconds = 24.60 usec/iter\n"
        )
    }

    #[test]
    fn a_pingpong_is_with_the_other_and_complete() {
        let judge = |outputs: [String; 2]| pingponged(&outputs, 10, 10);
        let good = || [pingpong_output(7, 8), pingpong_output(8, 7)];
        judge(good()).unwrap();
        assert!(judge([pingpong_output(7, 8), pingpong_output(9, 7)]).is_err());
        assert!(judge([String::new(), String::new()]).is_err());
        assert!(judge(good().map(|output| output + "invalid data in page 0\n")).is_err());
        assert!(judge(good().map(|output| output.replace("200 bytes", "190 bytes"))).is_err());
        assert!(judge(good().map(|output| output.replace("10 iters", "9 iters"))).is_err());
    }

    #[test]
    fn a_measurement_is_of_what_was_asked_for() {
        let output =
            " #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]\n \
            4096       320            500.00             250.00\t\t     0.064000\n";
        measured(output, 4096, 320).unwrap();
        measured(output, 4096, 300).unwrap();
        assert!(measured(output, 4096, 321).is_err());
        assert!(measured(output, 8192, 320).is_err());
        assert!(measured(&output.replace("250.00", "0.00"), 4096, 320).is_err());
    }

    #[test]
    fn pings_come_back_as_they_were_sent() {
        let lines = |start: &str, count: u8| -> String {
            let letter = |number| char::from(b'A' + number);
            (0..count)
                .map(|number| format!("{start}rdma-ping-{number}: {}\n", letter(number)))
                .collect()
        };
        let outputs = |count| [lines("server ping data: ", count), lines("ping data: ", count)];
        pinged(&outputs(20)).unwrap();
        assert!(pinged(&outputs(19)).is_err());
        let [server, client] = outputs(20);
        assert!(pinged(&[server.replace("7: H", "7: X"), client.clone()]).is_err());
        assert!(pinged(&[server, client].map(|output| output.replace("7: H", "7: X"))).is_err());
    }

    #[test]
    fn what_is_sent_to_a_group_comes_to_a_member() {
        let output = |group: &str, does: &str| {
            format!(
                "mckey: joined dgid: ::ffff:{group} mlid 0x0 sl 0\n{does} data transfers\n\
                 data transfers complete\ntest complete\nreturn status 0\n"
            )
        };
        let (server, client) =
            (output("239.44.1.2", "receiving"), output("239.44.1.2", "initiating"));
        joined(&[server.clone(), client.clone()]).unwrap();
        assert!(joined(&[server.clone(), output("239.44.1.3", "initiating")]).is_err());
        assert!(joined(&[client.clone(), server.clone()]).is_err());
        assert!(joined(&[server.replace("complete", ""), client.clone()]).is_err());
        assert!(joined(&[server.replace("joined", "left"), client]).is_err());
    }

    #[test]
    fn both_must_complete() {
        let good = || String::from("data transfers complete\ntest complete\nreturn status 0\n");
        completed(&[good(), good()]).unwrap();
        for word in ["data", "test", "status 0"] {
            assert!(completed(&[good(), good().replace(word, "")]).is_err(), "{word}");
            assert!(completed(&[good().replace(word, ""), good()]).is_err(), "{word}");
        }
    }
}
