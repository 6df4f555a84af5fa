//! A queue pair notes its groups.

use ibverbs::{Gid, QueuePair, Ud};

fn case(qp: &mut QueuePair<Ud>, group: Gid) -> ibverbs::Result<()> {
    qp.attach_mcast(group, 0)
}

fn main() {}
