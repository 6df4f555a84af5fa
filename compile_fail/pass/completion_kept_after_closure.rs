//! A completion that is handed to a closure cannot be kept: the next one takes its place.

use ibverbs::{CompletionQueue, WorkCompletion};

fn case(cq: &CompletionQueue) -> ibverbs::Result<usize> {
    let mut kept: Vec<u64> = Vec::new();
    cq.poll_armed(false, |wc| kept.push(wc.wr_id()))
}

fn main() {}
