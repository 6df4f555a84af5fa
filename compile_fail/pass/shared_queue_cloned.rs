//! A shared receive queue has one owner, who alone can close it.

use ibverbs::SharedReceiveQueue;

fn case(srq: SharedReceiveQueue) -> SharedReceiveQueue {
    srq
}

fn main() {}
