//! A way to a listener leads to one connection.

use std::time::Duration;

use ibverbs::rdmacm::{ConnectionParams, Resolved, Tcp};
use ibverbs::{PreparedQueuePair, Rc};

fn case(resolved: Resolved<Tcp>, other: Resolved<Tcp>, prepared: PreparedQueuePair<Rc>) {
    let params = ConnectionParams::new();
    let _connection = resolved.connect(prepared, &params, Duration::from_secs(1));
    println!("{:?}", other.peer_addr());
}

fn main() {}
