//! What a poll returns does not outlive the completion queue.
//~ error[E0515]: cannot return value referencing function parameter `cq`

use ibverbs::{CompletionQueue, Completions};

fn case<'cq>(cq: CompletionQueue) -> ibverbs::Result<Option<Completions<'cq>>> {
    cq.poll()
}

fn main() {}
