//! A request of one port space is not one of another.
//~ error[E0308]: mismatched types

use ibverbs::rdmacm::{Acceptor, Incoming, Tcp};

type Listener = Acceptor<ibverbs::rdmacm::Udp>;

fn case(listener: &mut Listener) -> ibverbs::Result<Option<Incoming<Tcp>>> {
    listener.poll()
}

fn main() {}
