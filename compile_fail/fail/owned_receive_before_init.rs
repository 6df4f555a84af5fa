//! A queue pair that is not initialised takes no receives.
//~ error[E0277]: a queue pair in state `Reset` cannot take receives

use ibverbs::{Buffer, Init, OwnedQueuePair, Rc, Reset};

fn case(mut qp: OwnedQueuePair<Rc, Reset>, _: OwnedQueuePair<Rc, Init>, buffer: Buffer) {
    let _ = qp.post_recv(1, buffer);
}

fn main() {}
