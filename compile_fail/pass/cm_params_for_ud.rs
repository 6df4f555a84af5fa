//! A datagram queue pair has none of the parameters of a connection.

use ibverbs::rdmacm::ConnectionParams;
use ibverbs::PreparedQueuePair;

type Prepared = PreparedQueuePair<ibverbs::Rc>;

fn case(prepared: &Prepared) -> ConnectionParams {
    ConnectionParams::new().for_queue_pair(prepared)
}

fn main() {}
