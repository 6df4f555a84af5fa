//! An unreliable connection has nothing that a fence could wait for.

use ibverbs::SendBatch;

type Batch<'qp> = SendBatch<'qp, ibverbs::Rc>;

fn case(batch: &mut Batch<'_>) {
    batch.op().fenced().send(1, b"hello");
}

fn main() {}
