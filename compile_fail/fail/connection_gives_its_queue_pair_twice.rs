//! A connection has one queue pair.
//~ error[E0382]: use of moved value: `connection.queue_pair`

use ibverbs::rdmacm::Connection;
use ibverbs::{QueuePair, Rc};

fn case(connection: Connection, other: Connection) -> [QueuePair<Rc>; 2] {
    [connection.queue_pair, connection.queue_pair]
}

fn main() {}
