//! A connected queue pair receives from its peer alone, and from no group.

use ibverbs::{Gid, QueuePair};

type Pair = QueuePair<ibverbs::Ud>;

fn case(qp: &mut Pair, group: Gid) -> ibverbs::Result<()> {
    qp.attach_mcast(group, 0)
}

fn main() {}
