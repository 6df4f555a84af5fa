//! Only the crate's own transports are transports.

use ibverbs::QueuePair;

use ibverbs::Rc as Mine;

struct Connection {
    qp: QueuePair<Mine>,
}

fn main() {}
