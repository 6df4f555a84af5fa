//! Only a reliable connection has reads to wait for.
//~ error[E0277]: `Uc` is no reliable connection: it has no timers, retries or fences to set, and the connection manager does not connect it

use ibverbs::{Buffer, OwnedQueuePair, Rc, Uc};

fn case(mut qp: OwnedQueuePair<Uc>, _: OwnedQueuePair<Rc>, buffer: Buffer) {
    let mut batch = qp.start_send();
    batch.op().fenced().send(1, buffer, 8);
    let _ = batch.submit();
}

fn main() {}
