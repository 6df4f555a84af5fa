//! A queue pair is not built with a completion queue that is gone.
//~ error[E0505]: cannot move out of `cq` because it is borrowed

use ibverbs::{CompletionQueue, ProtectionDomain, Rc};

fn case(pd: &ProtectionDomain, cq: CompletionQueue) -> ibverbs::Result<()> {
    let builder = pd.create_qp::<Rc>(&cq, &cq, 1)?;
    drop(cq);
    let prepared = builder.build()?;
    Ok(prepared.close()?)
}

fn main() {}
