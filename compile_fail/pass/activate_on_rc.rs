//! A connected queue pair has no queue key, and needs a peer.

use ibverbs::PreparedQueuePair;

type Prepared = PreparedQueuePair<ibverbs::Ud>;

fn case(prepared: Prepared) {
    let _qp = prepared.activate(0x1234);
}

fn main() {}
