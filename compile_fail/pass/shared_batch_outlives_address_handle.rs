//! An address handle that a shared batch names lives until that is submitted.

use ibverbs::{AddressHandle, QueuePair, Result, Ud};

fn case(mut qp: QueuePair<Ud>, ah: AddressHandle) -> Result<()> {
    let mut batch = qp.start_shared();
    batch.to(&ah, 1, 2).send(3, b"hello");
    batch.submit()?;
    Ok(drop(ah))
}

fn main() {}
