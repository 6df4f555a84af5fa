//! The device decides when it sends again; only how often to a peer that is not ready is the program's business.
//~ error[E0277]: `Srd` is no reliable connection

use ibverbs::QueuePairBuilder;

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Srd>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_timeout(ibverbs::AckTimeout::INFINITE)
}

fn main() {}
