//! What a bad link costs: a table that is reviewed when it changes.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use super::link::Faults;
use super::network::Driver;
use super::reliable::Reliable;
use super::scenario::Scenario;
use super::trace::Trace;
use crate::transport::State;
use crate::wire::Service;

const RUNS: u64 = 100;

/// What came of the runs over one link.
#[derive(Debug, Default)]
struct Row {
    failed: u64,
    requests: u64,
    again: u64,
    responses: u64,
    time: Duration,
    longest: Duration,
}

impl Row {
    fn run(loss: u32, reordering: u32) -> Row {
        let faults = Faults {
            loss,
            reordering,
            delay: Duration::from_micros(10),
            hold: Duration::from_micros(100),
            per_byte: Duration::from_nanos(1),
            back_pressure: true,
            ..Faults::default()
        };
        let scenario = Scenario {
            service: Service::Rc,
            faults: [faults; 2],
            operations: 40,
            driver: Driver::default(),
            ready: true,
            impatient: false,
            patient: false,
            poison: false,
            windows: false,
        };
        let mut row = Row::default();
        for seed in 0..RUNS {
            let (mut pair, _) = scenario.build(seed, &Trace::default());
            for node in 0..2 {
                let mut attributes = *pair.net.nodes[node].endpoints[0].qp.attributes();
                // 4.2 milliseconds.
                attributes.timeout = 10;
                attributes.retry_count = 3;
                pair.net.modify(node, 0, State::ReadyToSend, attributes);
            }
            let mut seen = Reliable::default();
            pair.run(&mut seen);
            seen.check_end(&pair);
            row.failed += u64::from(seen.views.iter().any(|view| view.failure.is_some()));
            for node in &pair.net.nodes {
                let seen = &node.endpoints[0].seen;
                row.requests += seen.requests;
                row.again += seen.again;
                row.responses += seen.responses;
            }
            row.time += pair.net.elapsed();
            row.longest = row.longest.max(pair.net.elapsed());
        }
        row
    }
}

fn table() -> String {
    let mut table = format!(
        "Two queue pairs with up to 40 random requests each, {RUNS} times: a timeout of 4.2 ms, 3 retries.\n\n\
         loss  reordered  failed  requests  sent again  responses    mean time      longest\n"
    );
    for loss in [0, 10, 50, 100, 200] {
        for reordering in [0, 10, 100, 200] {
            let row = Row::run(loss, reordering);
            let Row { failed, requests, responses, .. } = row;
            let again = 100.0 * row.again as f64 / requests as f64;
            let mean = row.time.as_micros() as f64 / 1e3 / RUNS as f64;
            let longest = row.longest.as_micros() as f64 / 1e3;
            let (loss, reordering) = (loss / 10, reordering / 10);
            writeln!(
                table,
                "{loss:3}%       {reordering:3}%  {failed:6}  {requests:8}  {again:9.1}%  {responses:9}  \
                 {mean:8.2} ms  {longest:8.1} ms"
            )
            .expect("a string takes everything");
        }
    }
    table
}

/// `BLESS=1` writes the table anew.
#[test]
fn the_table_of_bad_links_is_as_it_was_reviewed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sim/table.txt");
    let table = table();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &table).expect("the source can be written");
    }
    let reviewed = std::fs::read_to_string(&path).expect("the table is there");
    assert!(table == reviewed, "look at what has changed, and bless it with BLESS=1:\n{table}");
}
