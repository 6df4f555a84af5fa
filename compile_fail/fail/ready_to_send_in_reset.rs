//! A queue pair that cannot receive yet does not send.
//~ error[E0599]: no method named `ready_to_send` found for struct `QueuePair<ibverbs::Rc, Reset>`

use ibverbs::QueuePair;

type Pair = QueuePair<ibverbs::Rc, ibverbs::Reset>;

fn case(qp: Pair) {
    let _qp = qp.ready_to_send();
}

fn main() {}
