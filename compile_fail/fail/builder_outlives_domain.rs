//! A queue pair is not built in a protection domain that is gone.
//~ error[E0505]: cannot move out of `pd` because it is borrowed

use ibverbs::{CompletionQueue, ProtectionDomain, Rc};

fn case(pd: ProtectionDomain, cq: CompletionQueue) -> ibverbs::Result<()> {
    let builder = pd.create_qp::<Rc>(&cq, &cq, 1)?;
    drop(pd);
    let _prepared = builder.build()?;
    Ok(())
}

fn main() {}
