//! A connected queue pair is in no group that it could leave.

use ibverbs::{Gid, QueuePair};

type Pair = QueuePair<ibverbs::Ud>;

fn case(qp: &mut Pair, group: Gid) -> ibverbs::Result<()> {
    qp.detach_mcast(group, 0)
}

fn main() {}
