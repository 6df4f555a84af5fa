//! A queue pair is not built in a protection domain that is gone.

use ibverbs::{CompletionQueue, ProtectionDomain, Rc};

fn case(pd: ProtectionDomain, cq: CompletionQueue) -> ibverbs::Result<()> {
    let builder = pd.create_qp::<Rc>(&cq, &cq, 1)?;
    let _prepared = builder.build()?;
    drop(pd);
    Ok(())
}

fn main() {}
