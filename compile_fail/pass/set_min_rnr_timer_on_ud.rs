//! A datagram queue pair tells no peer to wait.

use ibverbs::{QueuePairBuilder, RnrTimer};

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Rc>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_min_rnr_timer(RnrTimer::MAX)
}

fn main() {}
