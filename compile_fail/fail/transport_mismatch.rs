//! What takes a queue pair of one transport does not take that of another.
//~ error[E0308]: mismatched types

use ibverbs::QueuePair;

fn serve(qp: QueuePair<ibverbs::Rc>) -> u32 {
    qp.qp_num()
}

fn case(qp: QueuePair<ibverbs::Uc>) -> u32 {
    serve(qp)
}

fn main() {}
