//! A datagram queue pair sends once it was activated.
//~ error[E0277]: a queue pair in state `Reset` cannot send

use ibverbs::{QueuePair, Reset, Ud};

type Pair = QueuePair<Ud, Reset>;

fn case(qp: &mut Pair) {
    drop(qp.start_send());
}

fn main() {}
