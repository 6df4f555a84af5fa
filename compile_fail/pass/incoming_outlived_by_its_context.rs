//! A request lends its context: who needs it after the request clones it.

use ibverbs::rdmacm::{Incoming, Tcp};
use ibverbs::ProtectionDomain;

fn case(incoming: Incoming<Tcp>) -> ibverbs::Result<ProtectionDomain> {
    let ctx = incoming.context().clone();
    incoming.reject(b"no")?;
    ctx.alloc_pd()
}

fn main() {}
