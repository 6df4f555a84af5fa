//! A queue pair of the owned level completes to a queue whose identifiers are the crate's.
//~ error[E0308]: arguments to this method are incorrect

use ibverbs::{CompletionQueue, OwnedCompletionQueue, ProtectionDomain, Rc, Result};

fn case(pd: ProtectionDomain, cq: CompletionQueue, _: OwnedCompletionQueue) -> Result<()> {
    pd.create_owned_qp::<Rc>(&cq, &cq, 1)?;
    Ok(())
}

fn main() {}
