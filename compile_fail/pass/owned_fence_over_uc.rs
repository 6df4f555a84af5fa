//! Only a reliable connection has reads to wait for.

use ibverbs::{Buffer, OwnedQueuePair, Rc, Uc};

fn case(mut qp: OwnedQueuePair<Rc>, _: OwnedQueuePair<Uc>, buffer: Buffer) {
    let mut batch = qp.start_send();
    batch.op().fenced().send(1, buffer, 8);
    let _ = batch.submit();
}

fn main() {}
