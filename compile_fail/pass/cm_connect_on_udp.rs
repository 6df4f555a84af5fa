//! Datagrams are not connected: a peer is found.

use std::time::Duration;

use ibverbs::rdmacm::{ConnectionParams, Resolved};
use ibverbs::{PreparedQueuePair, Rc};

type Way = Resolved<ibverbs::rdmacm::Tcp>;

fn case(way: Way, prepared: PreparedQueuePair<Rc>) {
    let _connection = way.connect(prepared, &ConnectionParams::new(), Duration::from_secs(1));
}

fn main() {}
