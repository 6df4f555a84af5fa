//! Resizing moves the queue that a poll looks into.

use ibverbs::CompletionQueue;

fn case(cq: &mut CompletionQueue) -> ibverbs::Result<()> {
    cq.resize(100)
}

fn main() {}
