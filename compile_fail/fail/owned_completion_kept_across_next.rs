//! A completion of the owned level is lent until the next one; its buffer may be kept.
//~ error[E0499]: cannot borrow `completions` as mutable more than once at a time

use ibverbs::{OwnedCompletionQueue, Result};

fn case(cq: OwnedCompletionQueue) -> Result<()> {
    if let Some(mut completions) = cq.poll()? {
        let first = completions.next();
        let _second = completions.next();
        drop(first);
    }
    Ok(())
}

fn main() {}
