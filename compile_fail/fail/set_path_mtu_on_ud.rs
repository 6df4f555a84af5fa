//! A datagram is one packet, and there is no path whose MTU could be agreed on.
//~ error[E0277]: `Ud` is not connected: address each operation with `.to(&ah, qpn, qkey)`

use ibverbs::{Mtu, QueuePairBuilder};

type Builder<'a> = QueuePairBuilder<'a, ibverbs::Ud>;

fn case(builder: Builder<'_>) -> Builder<'_> {
    builder.set_path_mtu(Mtu::B1024)
}

fn main() {}
