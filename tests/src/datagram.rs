//! Datagram queue pairs, and the way from one to another.

use ibverbs::{AddressHandle, Grh, QueuePairBuilder, QueuePairEndpoint, Ud};

use crate::device::{Bed, PORT};
use crate::pair::{prepare, Prepared, Side};

/// The queue key of most tests.
pub const QKEY: u32 = 0x1234_5678;

/// How many bytes of a receive the global route header takes.
pub const GRH: usize = Grh::BYTES;

/// A datagram queue pair that is ready, with room for a few scatter entries and some inline data.
#[track_caller]
pub fn activated(bed: &Bed, qkey: u32) -> Side<Ud> {
    activated_with(bed, qkey, |builder| {
        builder.set_max_send_sge(4).set_max_recv_sge(4).set_max_inline_data(64)
    })
}

/// A datagram queue pair that is ready; `setup` changes its builder.
#[track_caller]
pub fn activated_with(
    bed: &Bed,
    qkey: u32,
    setup: impl for<'b> FnOnce(QueuePairBuilder<'b, Ud>) -> QueuePairBuilder<'b, Ud>,
) -> Side<Ud> {
    let Prepared { qp, send_cq, recv_cq, bed } = prepare(bed, setup);
    Side { qp: qp.activate(qkey).expect("cannot activate"), send_cq, recv_cq, bed }
}

/// The way to `remote`, for all queue pairs of the bed, as this one's builder says.
#[track_caller]
pub fn way_from(from: &Side<Ud>, remote: &QueuePairEndpoint) -> AddressHandle {
    let address = from.qp.address_of(remote).expect("no address");
    from.bed.pd().create_ah(&address).expect("no address handle")
}

/// The way from one queue pair to another.
#[track_caller]
pub fn way(from: &Side<Ud>, to: &Side<Ud>) -> AddressHandle {
    way_from(from, &to.qp.endpoint().expect("endpoint"))
}

/// The longest datagram: what the port's packets carry.
#[track_caller]
pub fn longest_datagram(bed: &Bed) -> usize {
    let port = bed.ctx().query_port(PORT).expect("no port");
    port.active_mtu().bytes().expect("a port has an MTU that is known") as usize
}
