//! A queue pair that is ready is not activated again.
//~ error[E0277]: a queue pair in state `Rts` is past its bring-up

use ibverbs::{QueuePair, Rts, Ud};

type Pair = QueuePair<Ud, Rts>;

fn case(qp: Pair) {
    let _qp = qp.activate(0x1234);
}

fn main() {}
