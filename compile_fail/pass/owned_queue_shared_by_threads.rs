//! A completion queue of the owned level has one poller, too.

use ibverbs::OwnedCompletionQueue;

fn share<T: Send>(_: &T) {}

fn case(cq: OwnedCompletionQueue) {
    share(&cq);
}

fn main() {}
