//! An address handle that a shared batch names lives until that is submitted.
//~ error[E0505]: cannot move out of `ah` because it is borrowed

use ibverbs::{AddressHandle, QueuePair, Result, Ud};

fn case(mut qp: QueuePair<Ud>, ah: AddressHandle) -> Result<()> {
    let mut batch = qp.start_shared();
    batch.to(&ah, 1, 2).send(3, b"hello");
    drop(ah);
    batch.submit()
}

fn main() {}
