//! Only SRD has to be told that writes may be inline.
//~ error[E0599]: no method named `set_inline_write` found for struct

use ibverbs::QueuePairBuilder;

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Rc>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_inline_write(true)
}

fn main() {}
