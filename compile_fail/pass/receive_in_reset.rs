//! A queue pair that was only created takes no receives.

use ibverbs::{LocalMemorySlice, QueuePair, Rc, RecvRequest};

fn case(mut qp: QueuePair<Rc, ibverbs::Init>, slices: &[LocalMemorySlice]) -> ibverbs::Result<()> {
    unsafe { qp.post_recv([RecvRequest::new(1, slices)]) }
}

fn main() {}
