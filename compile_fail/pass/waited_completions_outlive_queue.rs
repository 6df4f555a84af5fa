//! Completions that were waited for are lent, as others are.

use ibverbs::CompletionQueue;

fn case(cq: CompletionQueue) -> ibverbs::Result<()> {
    let completions = cq.wait(None)?;
    drop(completions);
    drop(cq);
    Ok(())
}

fn main() {}
