//! An identifier brings a queue pair up once.
//~ error[E0277]: a queue pair in state `Rts` is past its bring-up

use ibverbs::rdmacm::CmId;
use ibverbs::{QueuePair, Rc};

type Prepared = QueuePair<Rc, ibverbs::Rts>;

fn case(id: &mut CmId, qp: Prepared) -> ibverbs::Result<QueuePair<Rc>> {
    Ok(id.bring_up(qp)?)
}

fn main() {}
