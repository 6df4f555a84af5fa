//! A connection that is not kept is ended.
//~ error: unused `ibverbs::rdmacm::Connection` that must be used

#![deny(unused_must_use)]

use std::time::Duration;

use ibverbs::rdmacm::{ConnectionParams, Resolved, Tcp};
use ibverbs::{PreparedQueuePair, Rc};

fn case(resolved: Resolved<Tcp>, prepared: PreparedQueuePair<Rc>) -> ibverbs::Result<()> {
    resolved.connect(prepared, &ConnectionParams::new(), Duration::from_secs(1))?;
    Ok(())
}

fn main() {}
