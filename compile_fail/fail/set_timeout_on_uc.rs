//! An unreliable connection waits for no acknowledgement.
//~ error[E0277]: `Uc` is no reliable connection: it has no timers, retries or fences to set

use ibverbs::{AckTimeout, QueuePairBuilder};

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Uc>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_timeout(AckTimeout::INFINITE)
}

fn main() {}
