//! The connection manager: queue pairs connected by addresses of IP. Needs the feature `rdmacm`.
//!
//! | what | C | here |
//! |---|---|---|
//! | connect and accept, step by step, waiting | `rdma_create_ep` and the like | [`Connector`], [`Acceptor`], [`Connection`] |
//! | identifiers for event loops | `rdma_cm_id` | [`CmId`], [`EventChannel`], [`CmEvent`] |
//! | what both sides tell each other | `rdma_conn_param` | [`ConnectionParams`], [`PeerParams`] |
//! | datagrams | `rdma_ud_param` | [`Resolved::find_peer`], [`Incoming::answer`], [`CmId::join_multicast`] |
//! | names of hosts | `rdma_getaddrinfo` | [`getaddrinfo`] |
//!
//! Which kind of queue pairs are behind a port is the port space's matter, and a type: [`Tcp`] connects
//! [`Rc`](crate::Rc) queue pairs, [`Udp`] is for [`Ud`](crate::Ud). Queue pairs are the program's own, and librdmacm never
//! learns of them: they are created with [`create_qp`](crate::ProtectionDomain::create_qp), and go through
//! the same states as others.
//!
//! With the feature `tokio`, what waits can be awaited: [`Connector::resolve_async`], [`Resolved::connect_async`],
//! [`Acceptor::accept_async`] and their like.
//!
//! Not wrapped are what works on queue pairs, completion queues and memory of librdmacm's own (`rdma_create_ep`,
//! `rdma_create_qp`, `rdma_create_srq`, `rdma_post_*`, `rdma_reg_*`, `rdma_get_request` and the like), which this crate does
//! itself; resolving services by name at the subnet manager (`rdma_resolve_addrinfo`, `rdma_query_addrinfo`); events
//! of the program's own (`rdma_write_cm_event`); paths of InfiniBand that the program has found out by itself
//! (`RDMA_OPTION_IB_PATH`); and sockets (`rsocket`).

mod acceptor;
mod address;
mod addrinfo;
mod bring_up;
mod channel;
mod connection;
mod connector;
mod device;
mod ece;
mod event;
mod failure;
mod id;
mod multicast;
mod options;
mod params;
mod port_space;
mod step;
#[cfg(feature = "tokio")]
mod task;

pub use acceptor::{Acceptor, Incoming};
pub use addrinfo::{getaddrinfo, AddrInfo, AddrInfoHints};
pub use channel::EventChannel;
pub use connection::Connection;
pub use connector::{Connector, FoundPeer, Resolved};
pub use ece::Ece;
pub use event::{CmEvent, CmEventType};
pub use failure::{ConnectionFailure, DatagramRefusal, RejectReason};
pub use id::CmId;
pub use multicast::Membership;
pub use params::{ConnectionParams, DatagramPeer, PeerParams, PrivateDataLimit};
pub use port_space::{ConnectedSpace, DatagramSpace, Ib, Ipoib, PortSpace, Tcp, Udp};
