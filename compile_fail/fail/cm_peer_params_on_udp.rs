//! A request of the datagram port space offers no reads and atomics.
//~ error[E0277]: port space `Udp` is one of datagrams, which are not connected

use ibverbs::rdmacm::{Incoming, PeerParams};

type Request = Incoming<ibverbs::rdmacm::Udp>;

fn case(request: &Request) -> Option<PeerParams> {
    request.peer_params()
}

fn main() {}
