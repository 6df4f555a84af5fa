//! A queue pair has one owner.
//~ error[E0599]: no method named `clone` found for

type Handle = ibverbs::QueuePair<ibverbs::Rc>;

fn case(handle: Handle) -> (Handle, Handle) {
    (handle.clone(), handle)
}

fn main() {}
