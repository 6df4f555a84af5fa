//! A completion queue is not moved during a poll.
//~ error[E0505]: cannot move out of `cq` because it is borrowed

use ibverbs::CompletionQueue;

fn case(cq: CompletionQueue) -> ibverbs::Result<Box<CompletionQueue>> {
    let completions = cq.poll()?;
    let moved = Box::new(cq);
    drop(completions);
    Ok(moved)
}

fn main() {}
