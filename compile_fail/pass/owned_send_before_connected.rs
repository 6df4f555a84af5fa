//! A queue pair that is not connected does not send.

use ibverbs::{Buffer, Init, OwnedQueuePair, Rc, Rts};

fn case(_: OwnedQueuePair<Rc, Init>, mut qp: OwnedQueuePair<Rc, Rts>, buffer: Buffer) {
    let _ = qp.send(1, buffer, 8);
}

fn main() {}
