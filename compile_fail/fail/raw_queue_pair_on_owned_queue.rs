//! A queue pair whose identifiers are the program's does not complete to an owned queue.
//~ error[E0308]: arguments to this method are incorrect

use ibverbs::{CompletionQueue, OwnedCompletionQueue, ProtectionDomain, Rc, Result};

fn case(pd: ProtectionDomain, _: CompletionQueue, cq: OwnedCompletionQueue) -> Result<()> {
    pd.create_qp::<Rc>(&cq, &cq, 1)?;
    Ok(())
}

fn main() {}
