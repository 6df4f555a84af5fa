//! The copies that a poll has found are in the memory that the next poll overwrites.
//~ error[E0499]: cannot borrow `wcs` as mutable more than once at a time

use ibverbs::{CompletionQueue, Wc};

fn case(cq: &CompletionQueue, mut wcs: [Wc; 4]) -> ibverbs::Result<usize> {
    let first = cq.poll_into(&mut wcs)?;
    let second = cq.poll_into(&mut wcs)?;
    Ok(first.len() + second.len())
}

fn main() {}
