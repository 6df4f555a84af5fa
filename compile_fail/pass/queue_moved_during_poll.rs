//! A completion queue is not moved during a poll.

use ibverbs::CompletionQueue;

fn case(cq: CompletionQueue) -> ibverbs::Result<Box<CompletionQueue>> {
    let completions = cq.poll()?;
    drop(completions);
    let moved = Box::new(cq);
    Ok(moved)
}

fn main() {}
