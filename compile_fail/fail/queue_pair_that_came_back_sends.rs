//! A queue pair that was not connected comes back as it was.
//~ error[E0277]: a queue pair in state `Reset` cannot send

use std::time::Duration;

use ibverbs::rdmacm::{ConnectionParams, Resolved, Tcp};
use ibverbs::{PreparedQueuePair, Rc};

fn case(resolved: Resolved<Tcp>, prepared: PreparedQueuePair<Rc>) {
    let params = ConnectionParams::new();
    match resolved.connect(prepared, &params, Duration::from_secs(1)) {
        Ok(mut connection) => drop(connection.queue_pair.start_send()),
        Err(mut failed) => drop(failed.resource.start_send()),
    }
}

fn main() {}
