//! A datagram queue pair tells no peer to wait.
//~ error[E0277]: `Ud` is no reliable connection: it has no timers, retries or fences to set

use ibverbs::{QueuePairBuilder, RnrTimer};

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Ud>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_min_rnr_timer(RnrTimer::MAX)
}

fn main() {}
