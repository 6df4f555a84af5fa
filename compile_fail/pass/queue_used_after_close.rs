//! Closing consumes the completion queue.

use ibverbs::CompletionQueue;

fn case(cq: CompletionQueue) -> ibverbs::Result<()> {
    cq.poll()?;
    cq.close()?;
    Ok(())
}

fn main() {}
