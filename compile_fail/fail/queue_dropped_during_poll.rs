//! A completion queue is not destroyed during a poll.
//~ error[E0505]: cannot move out of `cq` because it is borrowed

use ibverbs::CompletionQueue;

fn case(cq: CompletionQueue) -> ibverbs::Result<()> {
    let completions = cq.poll()?;
    drop(cq);
    drop(completions);
    Ok(())
}

fn main() {}
