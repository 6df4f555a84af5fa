//! A queue pair that is ready is not activated again.

use ibverbs::{Init, QueuePair, Ud};

type Pair = QueuePair<Ud, Init>;

fn case(qp: Pair) {
    let _qp = qp.activate(0x1234);
}

fn main() {}
