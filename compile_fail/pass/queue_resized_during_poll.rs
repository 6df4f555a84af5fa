//! A completion queue is not resized while a completion of it is lent.

use ibverbs::CompletionQueue;

fn case(mut cq: CompletionQueue) -> ibverbs::Result<()> {
    let completions = cq.poll()?;
    drop(completions);
    cq.resize(100)?;
    Ok(())
}

fn main() {}
