//! A queue pair that is ready to send is not connected once more.

use std::time::Duration;

use ibverbs::rdmacm::{Connection, ConnectionParams, Resolved, Tcp};
use ibverbs::{QueuePair, Rc};

type Prepared = QueuePair<Rc, ibverbs::Init>;

fn case(resolved: Resolved<Tcp>, qp: Prepared) -> ibverbs::Result<Connection> {
    Ok(resolved.connect(qp, &ConnectionParams::new(), Duration::from_secs(1))?)
}

fn main() {}
