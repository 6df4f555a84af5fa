//! Closing consumes the protection domain.
//~ error[E0382]: borrow of moved value: `pd`

use ibverbs::ProtectionDomain;

fn case(pd: ProtectionDomain) -> ibverbs::Result<()> {
    pd.close()?;
    let _srq = pd.create_srq(1).build()?;
    Ok(())
}

fn main() {}
