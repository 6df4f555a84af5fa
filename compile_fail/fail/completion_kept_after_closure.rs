//! A completion that is handed to a closure cannot be kept: the next one takes its place.
//~ error[E0521]: borrowed data escapes outside of closure

use ibverbs::{CompletionQueue, WorkCompletion};

fn case(cq: &CompletionQueue) -> ibverbs::Result<usize> {
    let mut kept: Vec<WorkCompletion<'_>> = Vec::new();
    cq.poll_armed(false, |wc| kept.push(wc))
}

fn main() {}
