//! An identifier activates queue pairs of datagrams; others are brought up.

use ibverbs::rdmacm::CmId;
use ibverbs::PreparedQueuePair;

type Prepared = PreparedQueuePair<ibverbs::Ud>;

fn case(id: &mut CmId, prepared: Prepared) {
    let _qp = id.activate(prepared);
}

fn main() {}
