//! What is posted to a queue pair of the owned level has identifiers of the crate.
//~ error[E0599]: no method named `start_shared` found for struct `OwnedQueuePair<T, S>` in the current scope

use ibverbs::{Buffer, OwnedQueuePair, Rc, SharedRegion};

fn case(mut qp: OwnedQueuePair<Rc>, region: SharedRegion, _: Buffer) {
    let mut batch = qp.start_shared();
    batch.op().send(1, &[region.slice(..8)]);
    let _ = batch.submit();
}

fn main() {}
