//! A batch of the owned level stays on its thread; its queue pair need not.

use ibverbs::{OwnedBatch, OwnedQueuePair, Rc};

fn send<T: Send>(_: T) {}

fn case(_: OwnedBatch<'_, Rc>, qp: OwnedQueuePair<Rc>) {
    send(qp);
}

fn main() {}
