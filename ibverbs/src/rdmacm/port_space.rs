//! Port spaces as types: which kind of queue pair an address leads to.

use crate::ffi;

mod sealed {
    use crate::ffi;

    /// What the crate knows of a port space. Only the crate's own markers implement it.
    pub trait Sealed {
        const RAW: ffi::rdma_port_space;
    }
}

/// A port space: ports of different ones have nothing to do with each other, nor with those of sockets. Sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a port space: use `Tcp`, `Udp`, `Ib` or `Ipoib`"
)]
pub trait PortSpace: sealed::Sealed + Copy + 'static {}

/// A port space whose queue pairs are connected: [`Tcp`] and [`Ib`]. Sealed.
#[diagnostic::on_unimplemented(
    message = "port space `{Self}` is one of datagrams, which are not connected",
    note = "a datagram's peer is found with `find_peer`, and a request for one answered with `answer`"
)]
pub trait ConnectedSpace: PortSpace {}

/// A port space whose queue pairs exchange datagrams: [`Udp`] and [`Ipoib`]. Sealed.
#[diagnostic::on_unimplemented(
    message = "port space `{Self}` is one of connections, not of datagrams",
    note = "a connection is set up with `connect` and `accept`"
)]
pub trait DatagramSpace: PortSpace {}

macro_rules! port_spaces {
    ($( $(#[$doc:meta])* $name:ident = $raw:ident; )*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name;

        impl sealed::Sealed for $name {
            const RAW: ffi::rdma_port_space = ffi::$raw;
        }
        impl PortSpace for $name {}
    )*};
}

port_spaces! {
    /// Reliable connections ([`Rc`](crate::Rc)): what most programs use.
    #[doc(alias = "RDMA_PS_TCP")]
    Tcp = RDMA_PS_TCP;
    /// Unreliable datagrams ([`Ud`](crate::Ud)), and multicast.
    #[doc(alias = "RDMA_PS_UDP")]
    Udp = RDMA_PS_UDP;
    /// Reliable connections, with service identifiers of InfiniBand: [`Rc`](crate::Rc).
    #[doc(alias = "RDMA_PS_IB")]
    Ib = RDMA_PS_IB;
    /// Unreliable datagrams that share multicast groups with IP over InfiniBand: [`Ud`](crate::Ud).
    #[doc(alias = "RDMA_PS_IPOIB")]
    Ipoib = RDMA_PS_IPOIB;
}

impl ConnectedSpace for Tcp {}
impl ConnectedSpace for Ib {}
impl DatagramSpace for Udp {}
impl DatagramSpace for Ipoib {}

/// What an error calls a port space.
pub(super) fn name(raw: ffi::rdma_port_space) -> &'static str {
    match raw {
        ffi::RDMA_PS_TCP => "TCP",
        ffi::RDMA_PS_UDP => "UDP",
        ffi::RDMA_PS_IB => "IB",
        ffi::RDMA_PS_IPOIB => "IPOIB",
        _ => "unknown",
    }
}
