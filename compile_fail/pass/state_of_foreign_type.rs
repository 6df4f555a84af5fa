//! Only the crate's own states are states.

use ibverbs::{QueuePair, Rc};

use ibverbs::Rts as Mine;

struct Connection {
    qp: QueuePair<Rc, Mine>,
}

fn main() {}
