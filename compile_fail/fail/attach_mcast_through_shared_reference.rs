//! A queue pair notes its groups.
//~ error[E0596]: cannot borrow `*qp` as mutable, as it is behind a `&` reference

use ibverbs::{Gid, QueuePair, Ud};

fn case(qp: &QueuePair<Ud>, group: Gid) -> ibverbs::Result<()> {
    qp.attach_mcast(group, 0)
}

fn main() {}
