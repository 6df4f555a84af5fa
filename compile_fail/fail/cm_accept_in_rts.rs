//! A queue pair that is ready to send belongs to a connection already.
//~ error[E0277]: a queue pair in state `Rts` is past its bring-up

use std::time::Duration;

use ibverbs::rdmacm::{Connection, ConnectionParams, Incoming, Tcp};
use ibverbs::{QueuePair, Rc};

type Prepared = QueuePair<Rc, ibverbs::Rts>;

fn case(incoming: Incoming<Tcp>, qp: Prepared) -> ibverbs::Result<Connection> {
    Ok(incoming.accept(qp, &ConnectionParams::new(), Duration::from_secs(1))?)
}

fn main() {}
