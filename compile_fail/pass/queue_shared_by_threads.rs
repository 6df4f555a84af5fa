//! A completion queue has one poller: threads that share it need a lock.

use ibverbs::CompletionQueue;

fn share<T: Sync>(_: &T) {}

fn case(cq: CompletionQueue) {
    share(&std::sync::Mutex::new(cq));
}

fn main() {}
