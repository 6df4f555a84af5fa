//! What takes a queue pair in one state does not take it in another.
//~ error[E0308]: mismatched types

use ibverbs::{QueuePair, Rc};

fn serve(qp: QueuePair<Rc, ibverbs::Rts>) -> u32 {
    qp.qp_num()
}

fn case(qp: QueuePair<Rc, ibverbs::Init>) -> u32 {
    serve(qp)
}

fn main() {}
