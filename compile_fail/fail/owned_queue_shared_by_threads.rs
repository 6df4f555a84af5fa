//! A completion queue of the owned level has one poller, too.
//~ error[E0277]: `Cell<u64>` cannot be shared between threads safely
//~ error[E0277]: `NonNull<ibv_cq_ex>` cannot be shared between threads safely
//~ error[E0277]: `Cell<()>` cannot be shared between threads safely
//~ error[E0277]: `UnsafeCell<ibverbs::owned::registry::Index>` cannot be shared between threads safely

use ibverbs::OwnedCompletionQueue;

fn share<T: Sync>(_: &T) {}

fn case(cq: OwnedCompletionQueue) {
    share(&cq);
}

fn main() {}
