//! Whoever posts a receive promises what the device may do with the memory.
//~ error[E0133]: call to unsafe function `ibverbs::post::recv::<impl QueuePair<T, S>>::post_recv` is unsafe

use ibverbs::{LocalMemorySlice, QueuePair, Rc, RecvRequest};

fn case(qp: &mut QueuePair<Rc>, slices: &[LocalMemorySlice]) -> ibverbs::Result<()> {
    qp.post_recv([RecvRequest::new(1, slices)])
}

fn main() {}
