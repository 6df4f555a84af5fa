//! Resizing moves the queue that a poll looks into.
//~ error[E0596]: cannot borrow `*cq` as mutable, as it is behind a `&` reference

use ibverbs::CompletionQueue;

fn case(cq: &CompletionQueue) -> ibverbs::Result<()> {
    cq.resize(100)
}

fn main() {}
