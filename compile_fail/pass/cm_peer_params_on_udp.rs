//! A request of the datagram port space offers no reads and atomics.

use ibverbs::rdmacm::{Incoming, PeerParams};

type Request = Incoming<ibverbs::rdmacm::Tcp>;

fn case(request: &Request) -> Option<PeerParams> {
    request.peer_params()
}

fn main() {}
