//! Nobody writes through a queue pair of unreliable datagrams.

use ibverbs::QueuePairBuilder;

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Srd>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_unsolicited_write_recv(true)
}

fn main() {}
