//! Closing consumes the completion queue.
//~ error[E0382]: borrow of moved value: `cq`

use ibverbs::CompletionQueue;

fn case(cq: CompletionQueue) -> ibverbs::Result<()> {
    cq.close()?;
    cq.poll()?;
    Ok(())
}

fn main() {}
