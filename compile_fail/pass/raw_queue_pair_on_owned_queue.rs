//! A queue pair whose identifiers are the program's does not complete to an owned queue.

use ibverbs::{CompletionQueue, OwnedCompletionQueue, ProtectionDomain, Rc, Result};

fn case(pd: ProtectionDomain, cq: CompletionQueue, _: OwnedCompletionQueue) -> Result<()> {
    pd.create_qp::<Rc>(&cq, &cq, 1)?;
    Ok(())
}

fn main() {}
