//! The copies that a poll has found are in the memory that the next poll overwrites.

use ibverbs::{CompletionQueue, Wc};

fn case(cq: &CompletionQueue, mut wcs: [Wc; 4]) -> ibverbs::Result<usize> {
    let first = cq.poll_into(&mut wcs)?.len();
    let second = cq.poll_into(&mut wcs)?.len();
    Ok(first + second)
}

fn main() {}
