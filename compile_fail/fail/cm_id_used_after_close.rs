//! An identifier that was destroyed is gone.
//~ error[E0382]: borrow of moved value: `id`

use ibverbs::rdmacm::CmId;

fn case(id: CmId, other: CmId) -> ibverbs::Result<()> {
    id.close()?;
    println!("{:?}", id.local_addr());
    Ok(())
}

fn main() {}
