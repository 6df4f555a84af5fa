//! A completion queue has one poller: threads that share it need a lock.
//~ error[E0277]: `NonNull<ibv_cq_ex>` cannot be shared between threads safely
//~ error[E0277]: `Cell<()>` cannot be shared between threads safely

use ibverbs::CompletionQueue;

fn share<T: Sync>(_: &T) {}

fn case(cq: CompletionQueue) {
    share(&cq);
}

fn main() {}
