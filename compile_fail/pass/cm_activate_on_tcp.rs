//! Where there are connections, no queue pair is activated.

use ibverbs::rdmacm::Resolved;
use ibverbs::{PreparedQueuePair, Ud};

type Way = Resolved<ibverbs::rdmacm::Udp>;

fn case(mut way: Way, prepared: PreparedQueuePair<Ud>) {
    let _qp = way.activate(prepared);
}

fn main() {}
