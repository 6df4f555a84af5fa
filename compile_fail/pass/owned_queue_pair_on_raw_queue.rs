//! A queue pair of the owned level completes to a queue whose identifiers are the crate's.

use ibverbs::{CompletionQueue, OwnedCompletionQueue, ProtectionDomain, Rc, Result};

fn case(pd: ProtectionDomain, _: CompletionQueue, cq: OwnedCompletionQueue) -> Result<()> {
    pd.create_owned_qp::<Rc>(&cq, &cq, 1)?;
    Ok(())
}

fn main() {}
