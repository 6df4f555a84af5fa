//! A batch ends in the thread that began it, which holds the provider's lock.
//~ error[E0277]: `*mut ibverbs::Rc` cannot be sent between threads safely

use ibverbs::{QueuePair, Rc};

fn send<T: Send>(_: T) {}

fn case(mut qp: QueuePair<Rc>) {
    let batch = qp.start_send();
    send(batch);
}

fn main() {}
