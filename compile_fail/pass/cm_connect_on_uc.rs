//! The connection manager connects queue pairs of reliable connections, not of unreliable connections.

use std::time::Duration;

use ibverbs::rdmacm::{Connection, ConnectionParams, Resolved, Tcp};
use ibverbs::PreparedQueuePair;

type Prepared = PreparedQueuePair<ibverbs::Rc>;

fn case(resolved: Resolved<Tcp>, prepared: Prepared) -> ibverbs::Result<Connection> {
    let params = ConnectionParams::new();
    match resolved.connect(prepared, &params, Duration::from_secs(1)) {
        Ok(connection) => Ok(connection),
        Err(failed) => Err(failed.error),
    }
}

fn main() {}
