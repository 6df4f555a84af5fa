//! A datagram queue pair that can receive is past its activation.
//~ error[E0277]: a queue pair in state `Rtr` is past its bring-up

use ibverbs::{QueuePair, Ud};

type Pair = QueuePair<Ud, ibverbs::Rtr>;

fn case(qp: Pair) {
    let _qp = qp.activate(0x1234);
}

fn main() {}
