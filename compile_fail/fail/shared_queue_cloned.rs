//! A shared receive queue has one owner, who alone can close it.
//~ error[E0599]: no method named `clone` found for struct `SharedReceiveQueue`

use ibverbs::SharedReceiveQueue;

fn case(srq: SharedReceiveQueue) -> SharedReceiveQueue {
    srq.clone()
}

fn main() {}
