//! An unreliable connection has nothing that a fence could wait for.
//~ error[E0277]: `Uc` is no reliable connection: it has no timers, retries or fences to set

use ibverbs::SendBatch;

type Batch<'qp> = SendBatch<'qp, ibverbs::Uc>;

fn case(batch: &mut Batch<'_>) {
    batch.op().fenced().send(1, b"hello");
}

fn main() {}
