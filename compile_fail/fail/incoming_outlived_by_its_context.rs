//! A request lends its context: who needs it after the request clones it.
//~ error[E0505]: cannot move out of `incoming` because it is borrowed

use ibverbs::rdmacm::{Incoming, Tcp};
use ibverbs::ProtectionDomain;

fn case(incoming: Incoming<Tcp>) -> ibverbs::Result<ProtectionDomain> {
    let ctx = incoming.context();
    incoming.reject(b"no")?;
    ctx.alloc_pd()
}

fn main() {}
