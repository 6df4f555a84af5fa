//! A datagram queue pair sends once it was activated.

use ibverbs::{QueuePair, Rts, Ud};

type Pair = QueuePair<Ud, Rts>;

fn case(qp: &mut Pair) {
    drop(qp.start_send());
}

fn main() {}
