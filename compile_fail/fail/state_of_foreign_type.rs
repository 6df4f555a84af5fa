//! Only the crate's own states are states.
//~ error[E0277]: `Mine` is not a state of a queue pair

use ibverbs::{QueuePair, Rc};

struct Mine;

struct Connection {
    qp: QueuePair<Rc, Mine>,
}

fn main() {}
