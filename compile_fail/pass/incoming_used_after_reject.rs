//! A request that was rejected is gone.

use ibverbs::rdmacm::{Incoming, Tcp};

fn case(incoming: Incoming<Tcp>, other: Incoming<Tcp>) -> ibverbs::Result<()> {
    incoming.reject(b"no")?;
    println!("{:?}", other.peer_private_data());
    Ok(())
}

fn main() {}
