//! One task at a time awaits the completions of a queue.

use ibverbs::AsyncCompletionQueue;

async fn case(mut cq: AsyncCompletionQueue) -> ibverbs::Result<()> {
    drop(cq.completions().await?);
    drop(cq.completions().await?);
    Ok(())
}

fn main() {}
