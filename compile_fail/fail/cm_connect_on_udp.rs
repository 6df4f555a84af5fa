//! Datagrams are not connected: a peer is found.
//~ error[E0277]: port space `Udp` is one of datagrams, which are not connected

use std::time::Duration;

use ibverbs::rdmacm::{ConnectionParams, Resolved};
use ibverbs::{PreparedQueuePair, Rc};

type Way = Resolved<ibverbs::rdmacm::Udp>;

fn case(way: Way, prepared: PreparedQueuePair<Rc>) {
    let _connection = way.connect(prepared, &ConnectionParams::new(), Duration::from_secs(1));
}

fn main() {}
