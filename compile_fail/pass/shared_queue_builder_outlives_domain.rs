//! A shared receive queue is not built in a protection domain that is gone.

use ibverbs::ProtectionDomain;

fn case(pd: ProtectionDomain) -> ibverbs::Result<()> {
    let builder = pd.create_srq(16);
    let _srq = builder.build()?;
    drop(pd);
    Ok(())
}

fn main() {}
