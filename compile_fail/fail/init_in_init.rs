//! A queue pair is initialised once.
//~ error[E0599]: no method named `init` found for struct `QueuePair<ibverbs::Rc, Init>`

use ibverbs::{QueuePair, Rc};

fn case(qp: QueuePair<Rc, ibverbs::Init>) -> ibverbs::Result<()> {
    let initialised = qp.init()?;
    Ok(initialised.close()?)
}

fn main() {}
