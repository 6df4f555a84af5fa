//! A completion queue is not closed during a poll.

use ibverbs::CompletionQueue;

fn case(cq: CompletionQueue) -> ibverbs::Result<()> {
    let completions = cq.poll()?;
    drop(completions);
    cq.close()?;
    Ok(())
}

fn main() {}
