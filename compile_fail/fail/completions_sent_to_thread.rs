//! A poll ends in the thread that began it, which holds the provider's lock.
//~ error[E0277]: `NonNull<ibv_cq_ex>` cannot be sent between threads safely
//~ error[E0277]: `*mut ()` cannot be sent between threads safely

use ibverbs::CompletionQueue;

fn send<T: Send>(_: T) {}

fn case(cq: CompletionQueue) -> ibverbs::Result<()> {
    if let Some(completions) = cq.poll()? {
        send(completions);
    }
    Ok(())
}

fn main() {}
