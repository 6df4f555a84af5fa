//! A connection has one queue pair.

use ibverbs::rdmacm::Connection;
use ibverbs::{QueuePair, Rc};

fn case(connection: Connection, other: Connection) -> [QueuePair<Rc>; 2] {
    [connection.queue_pair, other.queue_pair]
}

fn main() {}
