//! A queue pair gets ready to send once.
//~ error[E0599]: no method named `ready_to_send` found for struct `QueuePair<ibverbs::Rc>`

use ibverbs::QueuePair;

type Pair = QueuePair<ibverbs::Rc, ibverbs::Rts>;

fn case(qp: Pair) {
    let _qp = qp.ready_to_send();
}

fn main() {}
