//! A datagram is not sent again to a peer that was not ready.
//~ error[E0277]: `Ud` does not send again to a peer that was not ready to receive

use ibverbs::QueuePairBuilder;

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Ud>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_rnr_retry(3)
}

fn main() {}
