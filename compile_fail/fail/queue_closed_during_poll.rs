//! A completion queue is not closed during a poll.
//~ error[E0505]: cannot move out of `cq` because it is borrowed

use ibverbs::CompletionQueue;

fn case(cq: CompletionQueue) -> ibverbs::Result<()> {
    let completions = cq.poll()?;
    cq.close()?;
    drop(completions);
    Ok(())
}

fn main() {}
