//! Closing consumes the protection domain.

use ibverbs::ProtectionDomain;

fn case(pd: ProtectionDomain) -> ibverbs::Result<()> {
    let _srq = pd.create_srq(1).build()?;
    pd.close()?;
    Ok(())
}

fn main() {}
