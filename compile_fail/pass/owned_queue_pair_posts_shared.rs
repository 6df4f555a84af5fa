//! What is posted to a queue pair of the owned level has identifiers of the crate.

use ibverbs::{Buffer, OwnedQueuePair, Rc, SharedRegion};

fn case(mut qp: OwnedQueuePair<Rc>, _: SharedRegion, buffer: Buffer) {
    let mut batch = qp.start_send();
    batch.op().send(1, buffer, 8);
    let _ = batch.submit();
}

fn main() {}
