//! What was measured, as a table, as JSON and as a picture.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use serde_json::{json, Value};

use crate::exchange::Agreed;
use crate::plan::{Kind, Plan};
use crate::plot::{Chart, Scale, Series};
use crate::session::{Measured, Outcome};

/// All of one measurement.
pub(crate) struct Report {
    plan: Plan,
    /// The greatest length of a packet in bytes.
    mtu: u32,
    device: String,
    peer: String,
    /// The whole round trip is told, and not half of it.
    is_full: bool,
    rows: Vec<Row>,
}

/// What was measured with messages of one size.
struct Row {
    size: u32,
    operations: u64,
    figures: Figures,
}

enum Figures {
    /// Microseconds, at each of [`POINTS`] and on average; and how many were lost.
    Latency { micros: [f64; POINTS.len()], mean: f64, lost: u64 },
    /// How long it took, and how many arrived.
    Bandwidth { time: Duration, arrived: Option<u64> },
}

/// Which share of the operations took at most as long.
const POINTS: [(&str, f64); 6] =
    [("min", 0.0), ("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// The version of the JSON: it changes when the meaning of a field does.
const FORMAT: u32 = 1;

impl Report {
    pub(crate) fn new(agreed: &Agreed, device: &str, is_full: bool) -> Report {
        let plan = agreed.plan;
        Report {
            plan,
            mtu: agreed.mtu.bytes().unwrap_or_default(),
            device: device.into(),
            peer: agreed.peer.clone(),
            is_full,
            rows: Vec::new(),
        }
    }

    /// Whether half of what was measured is told.
    fn is_halved(&self) -> bool {
        self.plan.kind == Kind::Latency && self.plan.operation.is_ping_pong() && !self.is_full
    }

    pub(crate) fn add(&mut self, measured: &Measured) {
        let divisor = if self.is_halved() { 2.0 } else { 1.0 };
        let (operations, figures) = match &measured.result {
            Outcome::Latency { times, lost } => {
                (times.len() + lost, latency(times, *lost, divisor))
            }
            Outcome::Bandwidth { amount, arrived } => {
                (amount.operations, Figures::Bandwidth { time: amount.time, arrived: *arrived })
            }
        };
        self.rows.push(Row { size: measured.size, operations, figures });
    }

    /// What stands above the table.
    pub(crate) fn head(&self) -> String {
        let Report { plan, device, peer, mtu, .. } = self;
        let mut head = format!("{plan}, from {device} to {peer}, MTU {mtu}\n");
        match plan.kind {
            Kind::Latency => {
                let what = match (plan.operation.is_ping_pong(), self.is_full) {
                    (true, false) => "half of the round trip",
                    (true, true) => "the round trip",
                    (false, _) => "from the post to the completion",
                };
                let _ = writeln!(head, "{what}, in microseconds");
                let _ = write!(head, "{:>10} {:>10}", "bytes", "operations");
                for (name, _) in POINTS {
                    let _ = write!(head, " {name:>9}");
                }
            }
            Kind::Bandwidth(_) => {
                head.push_str("MB: 1000000 bytes; Mmsg: 1000000 messages\n");
                let _ = write!(head, "{:>10} {:>10}", "bytes", "operations");
                let _ = write!(head, " {:>11} {:>11} {:>10}", "MB/s", "Mmsg/s", "seconds");
            }
        }
        head
    }

    /// The last line of the table.
    pub(crate) fn line(&self) -> String {
        self.rows.last().map(Row::line).unwrap_or_default()
    }

    /// All of it, as one line.
    pub(crate) fn json(&self) -> String {
        let Report { plan, device, peer, mtu, .. } = self;
        let mut all = json!({
            "format": FORMAT,
            "kind": plan.kind.name(),
            "operation": plan.operation.name(),
            "transport": plan.transport.name(),
            "device": device,
            "peer": peer,
            "mtu": mtu,
            "inline": plan.inline,
            "warmup": plan.warmup,
            "results": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
        });
        let more = match plan.kind {
            Kind::Latency => json!({ "unit": "us", "halved": self.is_halved() }),
            Kind::Bandwidth(flow) => json!({
                "window": flow.window,
                "batch": flow.batch,
                "signal_every": flow.signal_every,
                "queue_pairs": flow.queue_pairs,
            }),
        };
        if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
            all.extend(more);
        }
        format!("{all}\n")
    }

    /// All of it, as a picture.
    pub(crate) fn svg(&self) -> String {
        let title = self.plan.to_string();
        let subtitle = format!("{} to {}, MTU {} bytes", self.device, self.peer, self.mtu);
        let series = |name: &str, value: &dyn Fn(&Row) -> f64| Series {
            name: name.into(),
            points: self.rows.iter().map(|row| (f64::from(row.size), value(row))).collect(),
        };
        let charts = match self.plan.kind {
            Kind::Latency => {
                let what = if self.is_halved() { "half of the round trip" } else { "latency" };
                let series = POINTS.iter().enumerate().map(|(place, (name, _))| {
                    series(name, &|row| match &row.figures {
                        Figures::Latency { micros, .. } => micros[place],
                        Figures::Bandwidth { .. } => f64::NAN,
                    })
                });
                vec![Chart {
                    y_label: format!("{what}, µs"),
                    scale: Scale::Logarithmic,
                    series: series.collect(),
                }]
            }
            Kind::Bandwidth(_) => [
                ("MB/s (10⁶ bytes/s)", Row::megabytes as fn(&Row) -> f64),
                ("million messages/s", Row::megamessages),
            ]
            .map(|(name, value)| Chart {
                y_label: name.into(),
                scale: Scale::Linear,
                series: vec![series("", &value)],
            })
            .into(),
        };
        crate::plot::draw([&title, &subtitle], "message size, bytes", &charts)
    }
}

/// A histogram's figures in microseconds, divided by this.
fn latency(times: &Histogram<u64>, lost: u64, divisor: f64) -> Figures {
    let micros = |nanos: f64| nanos / 1000.0 / divisor;
    let at = |(_, share)| match share {
        0.0 => times.min(),
        1.0 => times.max(),
        share => times.value_at_quantile(share),
    };
    Figures::Latency {
        micros: POINTS.map(|point| micros(at(point) as f64)),
        mean: micros(times.mean()),
        lost,
    }
}

impl Row {
    fn seconds(&self) -> f64 {
        match self.figures {
            Figures::Bandwidth { time, .. } => time.as_secs_f64(),
            Figures::Latency { .. } => f64::NAN,
        }
    }

    fn megamessages(&self) -> f64 {
        self.operations as f64 / self.seconds() / 1e6
    }

    fn megabytes(&self) -> f64 {
        self.megamessages() * f64::from(self.size)
    }

    fn line(&self) -> String {
        let Row { size, operations, figures } = self;
        let mut line = format!("{size:>10} {operations:>10}");
        match figures {
            Figures::Latency { micros, lost, .. } => {
                for micros in micros {
                    let _ = write!(line, " {micros:>9.2}");
                }
                if *lost > 0 {
                    let _ = write!(line, "  {lost} lost");
                }
            }
            Figures::Bandwidth { arrived, .. } => {
                let (rate, messages) = (self.megabytes(), self.megamessages());
                let _ = write!(line, " {rate:>11.2} {messages:>11.5} {:>10.3}", self.seconds());
                match arrived {
                    Some(arrived) if arrived < operations => {
                        let share = 100.0 * (operations - arrived) as f64 / *operations as f64;
                        let _ = write!(line, "  {share:.2} % did not arrive");
                    }
                    Some(_) => {}
                    None => line.push_str("  (sent: what arrived is not known)"),
                }
            }
        }
        line
    }

    fn json(&self) -> Value {
        let Row { size, operations, figures } = self;
        match figures {
            Figures::Latency { micros, mean, lost } => {
                let mut value = json!({
                    "size": size, "operations": operations, "lost": lost, "mean": mean,
                });
                for ((name, _), micros) in POINTS.iter().zip(micros) {
                    value[name] = json!(micros);
                }
                value
            }
            Figures::Bandwidth { arrived, .. } => json!({
                "size": size,
                "operations": operations,
                "bytes": operations * u64::from(*size),
                "seconds": self.seconds(),
                "MB_per_s": self.megabytes(),
                "Mmsg_per_s": self.megamessages(),
                "arrived": arrived,
            }),
        }
    }
}

/// Writes a file; `-` stands for the standard output.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    if path == Path::new("-") {
        print!("{text}");
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bandwidth::Amount;
    use crate::plan::tests::PLAN;
    use crate::plan::{Operation, Transport};
    use ibverbs::Mtu;

    fn report(plan: Plan, is_full: bool) -> Report {
        Report::new(&Agreed { plan, mtu: Mtu::B1024, peer: "rxe1".into() }, "rxe0", is_full)
    }

    /// A report of 1000 operations that took 2 to 2000 microseconds.
    fn latencies(operation: Operation, is_full: bool) -> Report {
        let mut times = Histogram::new_with_bounds(1, 1_000_000_000, 3).unwrap();
        (1..=1000).for_each(|n| times.record(n * 2000).unwrap());
        let plan = Plan { kind: Kind::Latency, operation, transport: Transport::Rc, ..PLAN };
        let mut report = report(plan, is_full);
        report.add(&Measured { size: 8, result: Outcome::Latency { times, lost: 3 } });
        report
    }

    fn parsed(report: &Report) -> Value {
        let json = report.json();
        assert_eq!(json.matches('\n').count(), 1, "it is one line");
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn half_of_a_round_trip_is_told_unless_it_is_no_round_trip() {
        for (operation, is_full, factor) in [
            (Operation::Send, false, 1.0),
            (Operation::Write, false, 1.0),
            (Operation::Write, true, 2.0),
            (Operation::Read, false, 2.0),
            (Operation::FetchAdd, true, 2.0),
        ] {
            let report = latencies(operation, is_full);
            let json = parsed(&report);
            assert_eq!(json["halved"], factor == 1.0);
            let result = &json["results"][0];
            for (name, micros) in
                [("min", 1.0), ("p50", 500.0), ("p99", 990.0), ("p99.9", 999.0), ("max", 1000.0)]
            {
                let told = result[name].as_f64().unwrap();
                let off = (told / (micros * factor) - 1.0).abs();
                assert!(off < 0.002, "{operation:?} {name}: {told}");
            }
            assert_eq!(report.head().contains("half of the round trip"), factor == 1.0);
        }
    }

    #[test]
    fn those_that_were_lost_are_told() {
        let report = latencies(Operation::Send, false);
        let result = &parsed(&report)["results"][0];
        assert_eq!((&result["operations"], &result["lost"]), (&json!(1003), &json!(3)));
        assert!(report.line().ends_with("3 lost"), "{}", report.line());
        // In the table each number stands below its name.
        let head = report.head();
        let names = head.lines().last().unwrap();
        let ends = |line: &str| -> Vec<usize> {
            let starts = line.match_indices(' ').map(|(at, _)| at);
            starts.filter(|&at| at > 0 && line.as_bytes()[at - 1] != b' ').collect()
        };
        assert_eq!(ends(names)[..7], ends(&report.line())[..7]);
    }

    #[test]
    fn rates_are_those_of_what_was_done() {
        let mut report = report(PLAN, false);
        let amount = Amount { operations: 1000, time: Duration::from_millis(500) };
        for arrived in [None, Some(1000), Some(750)] {
            let result = Outcome::Bandwidth { amount, arrived };
            report.add(&Measured { size: 65536, result });
        }
        let json = parsed(&report);
        let results = json["results"].as_array().unwrap();
        for result in results {
            assert_eq!(result["bytes"], 65_536_000);
            assert_eq!(result["MB_per_s"], 131.072);
            assert_eq!(result["Mmsg_per_s"], 0.002);
        }
        let arrived: Vec<_> = results.iter().map(|result| result["arrived"].clone()).collect();
        assert_eq!(arrived, [json!(null), json!(1000), json!(750)]);
        assert_eq!((&json["window"], &json["queue_pairs"]), (&json!(128), &json!(2)));
        let lines: Vec<_> = report.rows.iter().map(Row::line).collect();
        assert!(lines[0].ends_with("(sent: what arrived is not known)"), "{}", lines[0]);
        assert!(lines[1].ends_with("0.500"), "{}", lines[1]);
        assert!(lines[2].ends_with("25.00 % did not arrive"), "{}", lines[2]);
    }

    #[test]
    fn pictures_have_what_was_measured() {
        let svg = latencies(Operation::Send, false).svg();
        for text in [
            ">half of the round trip, µs<",
            ">p99.9<",
            ">message size, bytes<",
            ">rxe0 to rxe1, MTU 1024 bytes<",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        assert_eq!(svg.matches("<polyline").count(), POINTS.len());
        let mut report = report(PLAN, false);
        let amount = Amount { operations: 1000, time: Duration::from_millis(500) };
        report.add(&Measured { size: 8, result: Outcome::Bandwidth { amount, arrived: None } });
        let svg = report.svg();
        assert!(svg.contains(">MB/s (10⁶ bytes/s)<") && svg.contains(">million messages/s<"));
    }
}
