//! Closing consumes the address handle.

use ibverbs::AddressHandle;

fn case(ah: AddressHandle) -> ibverbs::Result<()> {
    println!("{:?}", ah.as_raw());
    ah.close()?;
    Ok(())
}

fn main() {}
