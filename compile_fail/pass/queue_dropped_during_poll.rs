//! A completion queue is not destroyed during a poll.

use ibverbs::CompletionQueue;

fn case(cq: CompletionQueue) -> ibverbs::Result<()> {
    let completions = cq.poll()?;
    drop(completions);
    drop(cq);
    Ok(())
}

fn main() {}
