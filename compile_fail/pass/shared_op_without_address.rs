//! An operation on a datagram transport is addressed in a shared batch, too.

use ibverbs::{AddressHandle, QueuePair, Result, Ud};

fn case(mut qp: QueuePair<Ud>, _ah: AddressHandle) -> Result<()> {
    let mut batch = qp.start_shared();
    batch.to(&_ah, 1, 2).send(3, b"hello");
    batch.submit()
}

fn main() {}
