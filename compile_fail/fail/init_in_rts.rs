//! A queue pair is initialised once.
//~ error[E0599]: no method named `init` found for struct `QueuePair<ibverbs::Rc>`

use ibverbs::QueuePair;

type Pair = QueuePair<ibverbs::Rc, ibverbs::Rts>;

fn case(qp: Pair) {
    let _qp = qp.init();
}

fn main() {}
