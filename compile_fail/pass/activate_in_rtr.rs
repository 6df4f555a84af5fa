//! A datagram queue pair that can receive is past its activation.

use ibverbs::{QueuePair, Ud};

type Pair = QueuePair<Ud, ibverbs::Init>;

fn case(qp: Pair) {
    let _qp = qp.activate(0x1234);
}

fn main() {}
