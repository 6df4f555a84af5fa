//! A queue pair is not built with a completion queue that is gone.

use ibverbs::{CompletionQueue, ProtectionDomain, Rc};

fn case(pd: &ProtectionDomain, cq: CompletionQueue) -> ibverbs::Result<()> {
    let builder = pd.create_qp::<Rc>(&cq, &cq, 1)?;
    let prepared = builder.build()?;
    drop(cq);
    Ok(prepared.close()?)
}

fn main() {}
