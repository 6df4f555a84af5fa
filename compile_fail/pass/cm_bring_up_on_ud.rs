//! An identifier of connections brings up queue pairs of reliable ones.

use ibverbs::rdmacm::CmId;
use ibverbs::PreparedQueuePair;

type Prepared = PreparedQueuePair<ibverbs::Rc>;

fn case(id: &mut CmId, prepared: Prepared) {
    let _qp = id.bring_up(prepared);
}

fn main() {}
