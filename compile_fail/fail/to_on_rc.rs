//! A connected queue pair has one peer: its operations are not addressed.
//~ error[E0277]: `ibverbs::Rc` is no datagram transport: its queue pairs are connected with `handshake`, and an operation begins with `.op()`

use ibverbs::{AddressHandle, SendBatch};

type Batch<'qp> = SendBatch<'qp, ibverbs::Rc>;

fn case(batch: &mut Batch<'_>, ah: &AddressHandle) {
    batch.to(ah, 17, 0x1234).send(1, b"hello");
}

fn main() {}
