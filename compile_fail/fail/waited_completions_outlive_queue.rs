//! Completions that were waited for are lent, as others are.
//~ error[E0505]: cannot move out of `cq` because it is borrowed

use ibverbs::CompletionQueue;

fn case(cq: CompletionQueue) -> ibverbs::Result<()> {
    let completions = cq.wait(None)?;
    drop(cq);
    drop(completions);
    Ok(())
}

fn main() {}
