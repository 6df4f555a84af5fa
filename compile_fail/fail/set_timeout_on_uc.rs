//! An unreliable connection waits for no acknowledgement.
//~ error[E0277]: `Uc` is not reliable: it has no acknowledgements, timers, retries or fences

use ibverbs::{AckTimeout, QueuePairBuilder};

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Uc>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_timeout(AckTimeout::INFINITE)
}

fn main() {}
