//! A connected queue pair is in no group that it could leave.
//~ error[E0277]: `ibverbs::Rc` is no datagram transport: its queue pairs are connected with `handshake`, and an operation begins with `.op()`

use ibverbs::{Gid, QueuePair};

type Pair = QueuePair<ibverbs::Rc>;

fn case(qp: &mut Pair, group: Gid) -> ibverbs::Result<()> {
    qp.detach_mcast(group, 0)
}

fn main() {}
