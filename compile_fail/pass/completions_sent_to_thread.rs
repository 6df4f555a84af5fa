//! A poll ends in the thread that began it, which holds the provider's lock.

use ibverbs::CompletionQueue;

fn send<T: Send>(_: T) {}

fn case(cq: CompletionQueue) -> ibverbs::Result<()> {
    if let Some(completions) = cq.poll()? {
        drop(completions);
    }
    send(cq);
    Ok(())
}

fn main() {}
