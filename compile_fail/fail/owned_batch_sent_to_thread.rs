//! A batch of the owned level stays on its thread; its queue pair need not.
//~ error[E0277]: `*mut ibverbs::Rc` cannot be sent between threads safely

use ibverbs::{OwnedBatch, OwnedQueuePair, Rc};

fn send<T: Send>(_: T) {}

fn case(batch: OwnedBatch<'_, Rc>, _: OwnedQueuePair<Rc>) {
    send(batch);
}

fn main() {}
