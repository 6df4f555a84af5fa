//! The numbers that the programs print.

use std::fmt::{self, Display};

use anyhow::{ensure, Context, Result};
use serde_json::Value;

/// What a program has measured.
#[derive(Debug, PartialEq)]
pub(crate) enum Figures {
    /// In microseconds: the least one, the usual one, and the one that 99 of 100 did not exceed.
    Latency { min: f64, typical: f64, p99: f64 },
    /// In millions of bytes per second, and in millions of messages per second.
    Bandwidth { bytes: f64, messages: f64 },
}

impl Figures {
    pub(super) const HEAD: [&str; 2] = [
        "latency in microseconds (typical is the median), bandwidth in 1000000 bytes and 1000000 messages per second",
        "                                  size      min  typical      p99       MB/s     Mmsg/s",
    ];

    /// Numbers that could have been measured.
    fn checked(self) -> Result<Figures> {
        let numbers = match self {
            Figures::Latency { min, typical, p99 } => vec![min, typical, p99],
            Figures::Bandwidth { bytes, messages } => vec![bytes, messages],
        };
        let is_possible = numbers.iter().all(|number| number.is_finite() && *number > 0.0);
        ensure!(is_possible, "nobody can have measured {self:?}");
        Ok(self)
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Figures::Latency { min, typical, p99 } => {
                write!(f, "{min:>8.2} {typical:>8.2} {p99:>8.2}")
            }
            Figures::Bandwidth { bytes, messages } => {
                write!(f, "{:26} {bytes:>10.2} {messages:>10.5}", "")
            }
        }
    }
}

/// Those of perftest: a line of numbers below a line that names them.
pub(crate) fn of_perftest(output: &str) -> Result<Figures> {
    // Its "MB" is 1024 times 1024 bytes.
    const MEGABYTE: f64 = 1.048_576;
    let mut lines = output.lines().skip_while(|line| !line.trim_start().starts_with("#bytes"));
    let head = lines.next().context("there is no table")?;
    let row = lines.next().context("the table is empty")?;
    let numbers: Result<Vec<f64>, _> = row.split_whitespace().map(str::parse).collect();
    let numbers = numbers.with_context(|| format!("this is no row of numbers: {row}"))?;
    match numbers[..] {
        [_, _, min, _max, typical, _average, _deviation, p99, _]
            if head.contains("t_typical[usec]") =>
        {
            Figures::Latency { min, typical, p99 }.checked()
        }
        [_, _, _peak, average, messages] if head.contains("BW average[MB/sec]") => {
            Figures::Bandwidth { bytes: average * MEGABYTE, messages }.checked()
        }
        _ => anyhow::bail!("this table is of another kind: {head}"),
    }
}

/// Those of the example: its line of JSON.
pub(super) fn of_perf(output: &str) -> Result<Figures> {
    let line = output.lines().find(|line| line.starts_with('{')).context("there is no JSON")?;
    let json: Value = serde_json::from_str(line)?;
    let result = &json["results"][0];
    let number = |name: &str| result[name].as_f64().with_context(|| format!("there is no {name}"));
    let figures = if json["kind"] == "latency" {
        Figures::Latency { min: number("min")?, typical: number("p50")?, p99: number("p99")? }
    } else {
        Figures::Bandwidth { bytes: number("MB_per_s")?, messages: number("Mmsg_per_s")? }
    };
    figures.checked()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str =
        "---------------------------------------------------------------------------------------";

    #[test]
    fn the_tables_of_perftest_are_read() {
        let latency = format!(
            "{RULE}\n local address: LID 0000 QPN 0x0013 PSN 0x1\n{RULE}\n \
             #bytes #iterations    t_min[usec]    t_max[usec]  t_typical[usec]    t_avg[usec]    t_stdev[usec]   99% percentile[usec]   99.9% percentile[usec] \n \
             8       1000          10.51          92.01        11.25     \t       11.80       \t1.23   \t\t20.50   \t\t92.01  \n{RULE}\n"
        );
        let figures = Figures::Latency { min: 10.51, typical: 11.25, p99: 20.5 };
        assert_eq!(of_perftest(&latency).unwrap(), figures);
        let bandwidth = format!(
            "{RULE}\n #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]\n \
             4096       1000             500.00             250.00\t\t     0.064000\n{RULE}\n"
        );
        let figures = Figures::Bandwidth { bytes: 262.144, messages: 0.064 };
        assert_eq!(of_perftest(&bandwidth).unwrap(), figures);
    }

    #[test]
    fn what_has_no_numbers_is_an_error() {
        let head =
            " #bytes     #iterations    BW peak[MB/sec]    BW average[MB/sec]   MsgRate[Mpps]\n";
        for output in [
            "",
            "Couldn't connect to 127.0.0.1:18515\n",
            head,
            &format!("{head}{RULE}\n"),
            &format!("{head} 4096 1000 0.00 0.00 0.000000\n"),
            &format!("{head} 4096 1000 1 nan 1\n"),
            &format!("{head} 4096 1000 1\n"),
            " #bytes of another kind\n 1 2 3 4 5\n",
        ] {
            assert!(of_perftest(output).is_err(), "{output}");
        }
    }

    #[test]
    fn the_json_of_the_example_is_read() {
        let latency = r#"{"kind":"latency","results":[{"min":1.5,"p50":2,"p99":3,"max":4}]}"#;
        let figures = Figures::Latency { min: 1.5, typical: 2.0, p99: 3.0 };
        assert_eq!(of_perf(&format!("a line\n{latency}\n")).unwrap(), figures);
        let bandwidth = r#"{"kind":"bandwidth","results":[{"MB_per_s":5,"Mmsg_per_s":0.25}]}"#;
        let figures = Figures::Bandwidth { bytes: 5.0, messages: 0.25 };
        assert_eq!(of_perf(bandwidth).unwrap(), figures);
        for output in
            ["", "{}", "{", r#"{"kind":"latency","results":[]}"#, &latency.replace("1.5", "0")]
        {
            assert!(of_perf(output).is_err(), "{output}");
        }
    }
}
