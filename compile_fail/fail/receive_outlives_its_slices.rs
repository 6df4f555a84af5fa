//! A receive request does not outlive its list of slices.
//~ error[E0505]: cannot move out of `slices` because it is borrowed

use ibverbs::{LocalMemorySlice, RecvRequest};

fn case(slices: Vec<LocalMemorySlice>) -> u64 {
    let request = RecvRequest::new(1, &slices);
    drop(slices);
    let id = request.wr_id();
    id
}

fn main() {}
