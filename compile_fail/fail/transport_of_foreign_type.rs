//! Only the crate's own transports are transports.
//~ error[E0277]: `Mine` is not an RDMA transport

use ibverbs::QueuePair;

struct Mine;

struct Connection {
    qp: QueuePair<Mine>,
}

fn main() {}
