//! A shared receive queue of the owned level has one owner who posts.

use ibverbs::{Buffer, OwnedSharedReceiveQueue};

fn case(srq: &mut OwnedSharedReceiveQueue, buffer: Buffer) {
    let _ = srq.post_recv(1, buffer);
}

fn main() {}
