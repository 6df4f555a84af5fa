//! A completion queue has one poller: there is no second handle of it.
//~ error[E0599]: no method named `clone` found for struct `CompletionQueue`

use ibverbs::CompletionQueue as Handle;

fn case(handle: Handle) -> (Handle, Handle) {
    (handle.clone(), handle)
}

fn main() {}
