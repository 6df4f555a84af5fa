//! Datagrams are not connected: a peer is found, in a task as well.

use ibverbs::rdmacm::{ConnectionParams, Resolved};
use ibverbs::{PreparedQueuePair, Rc};

type Way = Resolved<ibverbs::rdmacm::Ib>;

fn case(way: Way, prepared: PreparedQueuePair<Rc>) {
    drop(way.connect_async(prepared, &ConnectionParams::new()));
}

fn main() {}
