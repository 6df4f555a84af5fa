//! A queue pair that is ready to send belongs to a connection already.

use std::time::Duration;

use ibverbs::rdmacm::{Connection, ConnectionParams, Incoming, Tcp};
use ibverbs::{QueuePair, Rc};

type Prepared = QueuePair<Rc, ibverbs::Init>;

fn case(incoming: Incoming<Tcp>, qp: Prepared) -> ibverbs::Result<Connection> {
    Ok(incoming.accept(qp, &ConnectionParams::new(), Duration::from_secs(1))?)
}

fn main() {}
