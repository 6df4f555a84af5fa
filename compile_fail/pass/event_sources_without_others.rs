//! A later version may know more sources of events.

use ibverbs::{AsyncEvent, EventSource};

fn case(event: &AsyncEvent) -> u8 {
    match event.source() {
        EventSource::Port(port) => port,
        EventSource::Qp { .. } | EventSource::Cq { .. } => 0,
        EventSource::Srq { .. } | EventSource::Wq { .. } => 0,
        _ => 0,
    }
}

fn main() {}
