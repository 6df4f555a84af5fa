//! Only SRD has to be told that writes may be inline.

use ibverbs::QueuePairBuilder;

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Srd>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_inline_write(true)
}

fn main() {}
