//! Closing consumes the address handle.
//~ error[E0382]: borrow of moved value: `ah`

use ibverbs::AddressHandle;

fn case(ah: AddressHandle) -> ibverbs::Result<()> {
    ah.close()?;
    println!("{:?}", ah.as_raw());
    Ok(())
}

fn main() {}
