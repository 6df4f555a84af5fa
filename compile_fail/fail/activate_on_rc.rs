//! A connected queue pair has no queue key, and needs a peer.
//~ error[E0277]: `ibverbs::Rc` is no datagram transport: its queue pairs are connected with `handshake`, and an operation begins with `.op()`

use ibverbs::PreparedQueuePair;

type Prepared = PreparedQueuePair<ibverbs::Rc>;

fn case(prepared: Prepared) {
    let _qp = prepared.activate(0x1234);
}

fn main() {}
