//! A request is accepted once.
//~ error[E0382]: use of moved value: `incoming`

use std::time::Duration;

use ibverbs::rdmacm::{ConnectionParams, Incoming, Tcp};
use ibverbs::{PreparedQueuePair, Rc};

fn case(incoming: Incoming<Tcp>, other: Incoming<Tcp>, prepared: PreparedQueuePair<Rc>) {
    let params = ConnectionParams::new();
    let _connection = incoming.accept(prepared, &params, Duration::from_secs(1));
    let _refused = incoming.reject(b"too late");
}

fn main() {}
