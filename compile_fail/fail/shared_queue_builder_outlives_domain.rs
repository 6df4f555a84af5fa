//! A shared receive queue is not built in a protection domain that is gone.
//~ error[E0505]: cannot move out of `pd` because it is borrowed

use ibverbs::ProtectionDomain;

fn case(pd: ProtectionDomain) -> ibverbs::Result<()> {
    let builder = pd.create_srq(16);
    drop(pd);
    let _srq = builder.build()?;
    Ok(())
}

fn main() {}
