//! An identifier brings a queue pair up once.

use ibverbs::rdmacm::CmId;
use ibverbs::{QueuePair, Rc};

type Prepared = QueuePair<Rc, ibverbs::Reset>;

fn case(id: &mut CmId, qp: Prepared) -> ibverbs::Result<QueuePair<Rc>> {
    Ok(id.bring_up(qp)?)
}

fn main() {}
