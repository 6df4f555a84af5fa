//! What a poll returns does not outlive the completion queue.

use ibverbs::{CompletionQueue, Completions};

fn case<'cq>(cq: &'cq CompletionQueue) -> ibverbs::Result<Option<Completions<'cq>>> {
    cq.poll()
}

fn main() {}
