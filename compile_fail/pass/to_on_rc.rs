//! A connected queue pair has one peer: its operations are not addressed.

use ibverbs::{AddressHandle, SendBatch};

type Batch<'qp> = SendBatch<'qp, ibverbs::Ud>;

fn case(batch: &mut Batch<'_>, ah: &AddressHandle) {
    batch.to(ah, 17, 0x1234).send(1, b"hello");
}

fn main() {}
