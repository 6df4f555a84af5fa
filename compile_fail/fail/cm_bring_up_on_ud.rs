//! An identifier of connections brings up queue pairs of reliable ones.
//~ error[E0277]: `Ud` is no reliable connection

use ibverbs::rdmacm::CmId;
use ibverbs::PreparedQueuePair;

type Prepared = PreparedQueuePair<ibverbs::Ud>;

fn case(id: &mut CmId, prepared: Prepared) {
    let _qp = id.bring_up(prepared);
}

fn main() {}
