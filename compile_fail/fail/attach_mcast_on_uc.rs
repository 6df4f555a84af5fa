//! A connected queue pair receives from its peer alone, and from no group.
//~ error[E0277]: `Uc` is no datagram transport: its queue pairs are connected with `handshake`, and an operation begins with `.op()`

use ibverbs::{Gid, QueuePair};

type Pair = QueuePair<ibverbs::Uc>;

fn case(qp: &mut Pair, group: Gid) -> ibverbs::Result<()> {
    qp.attach_mcast(group, 0)
}

fn main() {}
