//! A poll borrows its queue.

use ibverbs::{OwnedCompletionQueue, Result};

fn case(cq: OwnedCompletionQueue) -> Result<()> {
    let completions = cq.poll()?;
    drop(completions);
    drop(cq);
    Ok(())
}

fn main() {}
