//! Where there are connections, no queue pair is activated.
//~ error[E0277]: port space `Tcp` is one of connections, not of datagrams

use ibverbs::rdmacm::Resolved;
use ibverbs::{PreparedQueuePair, Ud};

type Way = Resolved<ibverbs::rdmacm::Tcp>;

fn case(mut way: Way, prepared: PreparedQueuePair<Ud>) {
    let _qp = way.activate(prepared);
}

fn main() {}
