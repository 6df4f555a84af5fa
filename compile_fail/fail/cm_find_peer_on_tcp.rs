//! Where there are connections, no peer is asked for its queue pair alone.
//~ error[E0277]: port space `Tcp` is one of connections, not of datagrams

use std::time::Duration;

use ibverbs::rdmacm::{FoundPeer, Resolved};

type Way = Resolved<ibverbs::rdmacm::Tcp>;

fn case(way: Way) -> ibverbs::Result<FoundPeer> {
    way.find_peer(b"", Duration::from_secs(1))
}

fn main() {}
