//! A receive request does not outlive its list of slices.

use ibverbs::{LocalMemorySlice, RecvRequest};

fn case(slices: Vec<LocalMemorySlice>) -> u64 {
    let request = RecvRequest::new(1, &slices);
    let id = request.wr_id();
    drop(slices);
    id
}

fn main() {}
