//! Datagrams are not connected: a peer is found, in a task as well.
//~ error[E0277]: port space `Ipoib` is one of datagrams, which are not connected
//~ error[E0277]: port space `Ipoib` is one of datagrams, which are not connected

use ibverbs::rdmacm::{ConnectionParams, Resolved};
use ibverbs::{PreparedQueuePair, Rc};

type Way = Resolved<ibverbs::rdmacm::Ipoib>;

fn case(way: Way, prepared: PreparedQueuePair<Rc>) {
    drop(way.connect_async(prepared, &ConnectionParams::new()));
}

fn main() {}
