//! A datagram queue pair has none of the parameters of a connection.
//~ error[E0277]: `Ud` is no reliable connection

use ibverbs::rdmacm::ConnectionParams;
use ibverbs::PreparedQueuePair;

type Prepared = PreparedQueuePair<ibverbs::Ud>;

fn case(prepared: &Prepared) -> ConnectionParams {
    ConnectionParams::new().for_queue_pair(prepared)
}

fn main() {}
