//! What takes a queue pair in one state does not take it in another.

use ibverbs::{QueuePair, Rc};

fn serve(qp: QueuePair<Rc, ibverbs::Rts>) -> u32 {
    qp.qp_num()
}

fn case(qp: QueuePair<Rc, ibverbs::Rts>) -> u32 {
    serve(qp)
}

fn main() {}
