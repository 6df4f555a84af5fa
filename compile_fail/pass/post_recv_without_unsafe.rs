//! Whoever posts a receive promises what the device may do with the memory.

use ibverbs::{LocalMemorySlice, QueuePair, Rc, RecvRequest};

fn case(qp: &mut QueuePair<Rc>, slices: &[LocalMemorySlice]) -> ibverbs::Result<()> {
    unsafe { qp.post_recv([RecvRequest::new(1, slices)]) }
}

fn main() {}
