//! A completion of the owned level is lent until the next one; its buffer may be kept.

use ibverbs::{OwnedCompletionQueue, Result};

fn case(cq: OwnedCompletionQueue) -> Result<()> {
    if let Some(mut completions) = cq.poll()? {
        let first = completions.next().and_then(|mut completion| completion.take());
        let _second = completions.next();
        drop(first);
    }
    Ok(())
}

fn main() {}
