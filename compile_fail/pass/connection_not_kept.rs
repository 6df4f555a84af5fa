//! A connection that is not kept is ended.

#![deny(unused_must_use)]

use std::time::Duration;

use ibverbs::rdmacm::{ConnectionParams, Resolved, Tcp};
use ibverbs::{PreparedQueuePair, Rc};

fn case(resolved: Resolved<Tcp>, prepared: PreparedQueuePair<Rc>) -> ibverbs::Result<()> {
    let _kept = resolved.connect(prepared, &ConnectionParams::new(), Duration::from_secs(1))?;
    Ok(())
}

fn main() {}
