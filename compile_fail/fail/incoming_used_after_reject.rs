//! A request that was rejected is gone.
//~ error[E0382]: borrow of moved value: `incoming`

use ibverbs::rdmacm::{Incoming, Tcp};

fn case(incoming: Incoming<Tcp>, other: Incoming<Tcp>) -> ibverbs::Result<()> {
    incoming.reject(b"no")?;
    println!("{:?}", incoming.peer_private_data());
    Ok(())
}

fn main() {}
