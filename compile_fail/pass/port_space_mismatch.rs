//! A request of one port space is not one of another.

use ibverbs::rdmacm::{Acceptor, Incoming, Tcp};

type Listener = Acceptor<ibverbs::rdmacm::Tcp>;

fn case(listener: &mut Listener) -> ibverbs::Result<Option<Incoming<Tcp>>> {
    listener.poll()
}

fn main() {}
