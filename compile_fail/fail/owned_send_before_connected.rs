//! A queue pair that is not connected does not send.
//~ error[E0277]: a queue pair in state `Init` cannot send

use ibverbs::{Buffer, Init, OwnedQueuePair, Rc, Rts};

fn case(mut qp: OwnedQueuePair<Rc, Init>, _: OwnedQueuePair<Rc, Rts>, buffer: Buffer) {
    let _ = qp.send(1, buffer, 8);
}

fn main() {}
