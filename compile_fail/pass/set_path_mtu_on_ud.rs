//! A datagram is one packet, and there is no path whose MTU could be agreed on.

use ibverbs::{Mtu, QueuePairBuilder};

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Rc>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_path_mtu(Mtu::B1024)
}

fn main() {}
