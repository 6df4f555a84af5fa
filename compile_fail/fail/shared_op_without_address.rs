//! An operation on a datagram transport is addressed in a shared batch, too.
//~ error[E0277]: `Ud` is not connected: address each operation with `.to(&ah, qpn, qkey)`

use ibverbs::{AddressHandle, QueuePair, Result, Ud};

fn case(mut qp: QueuePair<Ud>, _ah: AddressHandle) -> Result<()> {
    let mut batch = qp.start_shared();
    batch.op().send(3, b"hello");
    batch.submit()
}

fn main() {}
