//! A shared receive queue of the owned level has one owner who posts.
//~ error[E0596]: cannot borrow `*srq` as mutable, as it is behind a `&` reference

use ibverbs::{Buffer, OwnedSharedReceiveQueue};

fn case(srq: &OwnedSharedReceiveQueue, buffer: Buffer) {
    let _ = srq.post_recv(1, buffer);
}

fn main() {}
