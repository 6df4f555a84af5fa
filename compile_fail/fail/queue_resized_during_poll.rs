//! A completion queue is not resized while a completion of it is lent.
//~ error[E0502]: cannot borrow `cq` as mutable because it is also borrowed as immutable

use ibverbs::CompletionQueue;

fn case(mut cq: CompletionQueue) -> ibverbs::Result<()> {
    let completions = cq.poll()?;
    cq.resize(100)?;
    drop(completions);
    Ok(())
}

fn main() {}
