//! A queue pair that is not initialised takes no receives.

use ibverbs::{Buffer, Init, OwnedQueuePair, Rc, Reset};

fn case(_: OwnedQueuePair<Rc, Reset>, mut qp: OwnedQueuePair<Rc, Init>, buffer: Buffer) {
    let _ = qp.post_recv(1, buffer);
}

fn main() {}
