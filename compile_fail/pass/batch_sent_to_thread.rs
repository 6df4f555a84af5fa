//! A batch ends in the thread that began it, which holds the provider's lock.

use ibverbs::{QueuePair, Rc};

fn send<T: Send>(_: T) {}

fn case(mut qp: QueuePair<Rc>) {
    let batch = qp.start_send();
    drop(batch);
    send(qp);
}

fn main() {}
