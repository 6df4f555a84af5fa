//! The programs that must run on the software device as they are packaged, and what each must say.

use std::fmt::Write;

use anyhow::{bail, ensure, Context, Result};

use super::session::{free_port, Place};
use crate::host::{self, Need};
use crate::perftest::figures;

/// The packages of Debian that they are in.
const UTILS: &str = "ibverbs-utils";
const PERFTEST: &str = "perftest";

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
    /// Measures, between two processes. `size` is 0 if it has one size of its own.
    Measure { size: u64, iters: u64, options: &'static str },
}

const fn look(program: &'static str, options: &'static str, judge: fn(&str) -> Result<()>) -> Case {
    Case { program, kind: Kind::Look { options, judge } }
}

const fn pingpong(program: &'static str, size: u64, iters: u64, options: &'static str) -> Case {
    Case { program, kind: Kind::Pingpong { size, iters, options } }
}

const fn measure(program: &'static str, size: u64, iters: u64, options: &'static str) -> Case {
    Case { program, kind: Kind::Measure { size, iters, options } }
}

const MIB: u64 = 1 << 20;
/// The size that atomics have.
const WORD: u64 = 8;

/// `-e` sleeps until there is an event, `-t` takes timestamps, and so polls by the extended interface, `-N` posts by it. With `-e`
/// and `-t` at once `ibv_rc_pingpong` takes an event for a failure whose completion it has seen already.
pub(super) const CASES: [Case; 33] = [
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
        }
    }

    /// The program with its options, but for the port and the server.
    fn words(&self) -> String {
        let (program, mut words) = (self.program, String::new());
        let sized = |size| if size == WORD { String::new() } else { format!(" -s {size}") };
        match self.kind {
            Kind::Look { options, .. } => write!(words, "{program} {options}"),
            Kind::Pingpong { size, iters, options } => {
                write!(words, "{program} -g 1 -c -s {size} -n {iters} {options}")
            }
            // It does not have to be told that the processor's speed may change.
            Kind::Measure { size, iters, options } => {
                write!(words, "{program} -F -x 1{} -n {iters} {options}", sized(size))
            }
        }
        .expect("a string can be written to");
        words.trim_end().into()
    }

    /// What it is called where its result is told.
    pub(super) fn name(&self) -> String {
        self.words()
    }

    /// Runs it; an error says what was wrong.
    pub(super) fn run(&self, place: &Place<'_>) -> Result<()> {
        let words = |more: &str| -> Vec<String> {
            format!("{} {more}", self.words()).split_whitespace().map(String::from).collect()
        };
        if let Kind::Look { judge, .. } = self.kind {
            let output = place.run(&words(""))?;
            return judge(&output).with_context(|| output);
        }
        let port = free_port().context("there is no free port")?;
        let server = words(&format!("-p {port}"));
        let client = words(&format!("-p {port} 127.0.0.1"));
        let outputs = place.run_pair(&server, &client, port)?;
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
}
