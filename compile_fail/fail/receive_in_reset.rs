//! A queue pair that was only created takes no receives.
//~ error[E0277]: a queue pair in state `Reset` cannot take receives

use ibverbs::{LocalMemorySlice, QueuePair, Rc, RecvRequest};

fn case(mut qp: QueuePair<Rc, ibverbs::Reset>, slices: &[LocalMemorySlice]) -> ibverbs::Result<()> {
    unsafe { qp.post_recv([RecvRequest::new(1, slices)]) }
}

fn main() {}
