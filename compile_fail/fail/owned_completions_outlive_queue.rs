//! A poll borrows its queue.
//~ error[E0505]: cannot move out of `cq` because it is borrowed

use ibverbs::{OwnedCompletionQueue, Result};

fn case(cq: OwnedCompletionQueue) -> Result<()> {
    let completions = cq.poll()?;
    drop(cq);
    drop(completions);
    Ok(())
}

fn main() {}
