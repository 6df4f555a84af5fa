//! An identifier activates queue pairs of datagrams; others are brought up.
//~ error[E0308]: mismatched types

use ibverbs::rdmacm::CmId;
use ibverbs::PreparedQueuePair;

type Prepared = PreparedQueuePair<ibverbs::Rc>;

fn case(id: &mut CmId, prepared: Prepared) {
    let _qp = id.activate(prepared);
}

fn main() {}
