//! One task at a time awaits the completions of a queue.
//~ error[E0499]: cannot borrow `cq` as mutable more than once at a time

use ibverbs::AsyncCompletionQueue;

async fn case(mut cq: AsyncCompletionQueue) -> ibverbs::Result<()> {
    let (first, second) = (cq.completions(), cq.completions());
    drop(first.await?);
    drop(second.await?);
    Ok(())
}

fn main() {}
