//! A request is accepted with a queue pair of a reliable connection.

use std::time::Duration;

use ibverbs::rdmacm::{Connection, ConnectionParams, Incoming, Tcp};
use ibverbs::PreparedQueuePair;

type Prepared = PreparedQueuePair<ibverbs::Rc>;

fn case(incoming: Incoming<Tcp>, prepared: Prepared) -> ibverbs::Result<Connection> {
    let params = ConnectionParams::new();
    match incoming.accept(prepared, &params, Duration::from_secs(1)) {
        Ok(connection) => Ok(connection),
        Err(failed) => Err(failed.error),
    }
}

fn main() {}
