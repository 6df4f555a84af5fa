//! An unreliable connection has nothing that a fence could wait for.
//~ error[E0277]: `Uc` is not reliable: it has no acknowledgements, timers, retries or fences

use ibverbs::SendBatch;

type Batch<'qp> = SendBatch<'qp, ibverbs::Uc>;

fn case(batch: &mut Batch<'_>) {
    batch.op().fenced().send(1, b"hello");
}

fn main() {}
