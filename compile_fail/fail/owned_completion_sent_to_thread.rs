//! A completion stays on the thread that polls; its buffer need not.
//~ error[E0277]: `NonNull<ibv_cq_ex>` cannot be sent between threads safely
//~ error[E0277]: `UnsafeCell<ibverbs::owned::registry::Index>` cannot be shared between threads safely

use ibverbs::{Buffer, OwnedCompletion};

fn send<T: Send>(_: T) {}

fn case(completion: OwnedCompletion<'_>, _: Buffer) {
    send(completion);
}

fn main() {}
