//! An identifier that was destroyed is gone.

use ibverbs::rdmacm::CmId;

fn case(id: CmId, other: CmId) -> ibverbs::Result<()> {
    id.close()?;
    println!("{:?}", other.local_addr());
    Ok(())
}

fn main() {}
