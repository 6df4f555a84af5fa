//! Nobody writes through a queue pair of unreliable datagrams.
//~ error[E0599]: no method named `set_unsolicited_write_recv` found for struct

use ibverbs::QueuePairBuilder;

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Ud>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_unsolicited_write_recv(true)
}

fn main() {}
